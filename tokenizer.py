"""Text to token ids and back, in one place.

Two kinds of vocabulary, one type (`tiktoken.Encoding`, whose Rust code does the encoding):

    tok = train(["5-1=4\\n#4", ...])      # byte-level BPE learned here, at most 512 tokens
    tok = load("gpt2")                    # any public one, through tiktoken's own loader

Rank order of a trained vocabulary: 256 bytes | words of a closed vocabulary | learned merges |
special tokens. All 256 bytes are always there, so any text round-trips, half surrogates apart. A
digit is always a token of its own, as in most models that calculate. Left out: normalisation and
every option of a tokenizer library. """
import itertools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

import tiktoken

import chat
from lib.surface import at_word

# TURN: the environment has spoken, the model's turn begins. END: the model is done
TURN, END = "<|turn|>", "<|end|>"
SPECIALS = (TURN, END)

# A piece is a word with the space before it, one digit, a run of punctuation, or white space.
# Python's `re`, which cuts for training, and tiktoken's Rust regex read \w, \s and \d each in its
# own way (the vowels of Hindi and Thai, the accents of an NFD text, joiners). So the pattern spells
# out what is a blank, a digit and punctuation, and a word is all the rest.
BLANK = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
ZEROS = "0٠۰߀०০੦૦୦௦౦೦൦๐໐༠၀០᠐０"  # nine more digits follow each
DIGIT = "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in ZEROS)
SIGN = (
    "\0-\x08\x0e-\x1f!-/:-@\\[-`{-\x84\x86-\x9f"  # ASCII and control characters
    "\xa1-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u037e\u0387"  # Latin, Greek
    "\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4"  # Armenian, Hebrew
    "\u0609-\u060d\u061b-\u061f\u066a-\u066d\u06d4"  # Arabic
    "\u0964\u0965\u0e3f\u0e4f\u0e5a\u0e5b\u0f04-\u0f0a\u0f0d-\u0f14"  # India, Tibet
    "\u104a-\u104f\u1361-\u1368\u17d4-\u17db"  # Burma, Ethiopia, Cambodia
    "\u200b\u200e-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u206f\u20a0-\u20cf"  # dashes, money
    "\u2190-\u24b5\u24ea-\u2bff\u2e00-\u2e7f\U0001f000-\U0001fbef"  # arrows, pictures
    "\u3001-\u3004\u3008-\u3020\u3030\u303d-\u303f\u30fb"  # China, Japan
    "\ufe10-\ufe19\ufe30-\ufe6f\ufeff-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffff")
# Its alternatives cover every character: what none matched, tiktoken would drop without a word.
PATTERN = (rf" ?[^{BLANK}{DIGIT}{SIGN}]+|[{DIGIT}]| ?[{SIGN}]+"
           rf"|[{BLANK}]{{1,256}}(?![^{BLANK}])|[{BLANK}]")


@dataclass
class Tokenizer:
    """A tiktoken Encoding with our two special tokens, and the seam every rollout goes through."""
    encoding: tiktoken.Encoding
    name: str  # "trained", or the public name it was loaded by
    roles: tuple = ()  # more special tokens: what a model of several roles is asked to write

    def __post_init__(self):
        self.n_vocab = self.encoding.n_vocab
        self.turn_id, self.end_id = (self.encoding.encode_single_token(s) for s in SPECIALS)
        self.stop_ids = (self.end_id,)
        self.holes = set()  # ids that public vocabularies leave unused
        for token in range(self.n_vocab):
            try:
                self.encoding.decode_single_token_bytes(token)
            except KeyError:
                self.holes.add(token)

    def encode(self, text):
        # never yields a special token, whatever the text holds
        return self.encoding.encode_ordinary(text)

    def decode(self, ids):
        """Ids -> text. A special token shows as its name and an unused id as U+FFFD, so that
        neither passes for an answer."""
        parts = [b"\xff" if i in self.holes else self.encoding.decode_single_token_bytes(i)
                 for i in map(int, ids)]
        return b"".join(parts).decode(errors="replace")

    def encode_turn(self, role, text, first=False):
        """One turn of a conversation as ids. role "user": what the environment says, then TURN;
        "assistant": what the model says, then END. `first`: the conversation starts here (a chat
        template puts its preamble there)."""
        if role not in ("user", "assistant"):
            raise ValueError(f"role is 'user' or 'assistant', not {role!r}")
        return self.encode(text) + [self.turn_id if role == "user" else self.end_id]

    def role_id(self, role):
        return self.encoding.encode_single_token(role)

    def word_boundary_ids(self, mark=" "):
        """Ids after which a word is taken to be complete. mark " ": tokens that begin with a space
        (the tandem paper's rule); mark "\\n": tokens that hold a newline, for chains where a word
        is a line."""
        mark = mark.encode()
        found = []
        for token in range(self.n_vocab):
            if token in self.holes:
                continue
            surface = self.encoding.decode_single_token_bytes(token)
            if at_word(surface, mark):
                found.append(token)
        return found

    def state(self):
        """What a checkpoint keeps: plain types only, so that it loads with weights_only=True."""
        roles = {"roles": list(self.roles)} if self.roles else {}
        if self.name != "trained":
            return {"name": self.name, **roles}
        ranks = sorted(self.encoding._mergeable_ranks, key=self.encoding._mergeable_ranks.get)
        return {"name": "trained", "ranks": [r.hex() for r in ranks], **roles}


def content(tok):
    """What a tokenizer is, wherever its files lie and whatever day it is: plain types."""
    return {name: value for name, value in tok.state().items() if name not in ("folder", "day")}


def by_author(tok, ids, authors):
    """ids, authors (True: the senior) -> [(author, text)] of each stretch by one author"""
    parts, done = [], []
    for author, part in itertools.groupby(zip(ids, authors), key=lambda x: x[1]):
        mine = [token for token, _ in part]
        parts.append((author, continued(tok, done, mine)))
        done += mine
    return parts


def continued(tok, before, ids):
    """The text of ids as it stands behind other ids: by themselves the decoders of SentencePiece
    would drop the blank at its start."""
    last = before[-4:]
    start, whole = tok.decode(last), tok.decode([*last, *ids])
    return whole[len(start):] if whole.startswith(start) else tok.decode(ids)


def from_state(state):
    if state["name"] == "folder":
        return chat.from_state(state)
    if state["name"] != "trained":
        return load(state["name"], state.get("roles", ()))
    return _trained([bytes.fromhex(r) for r in state["ranks"]], state.get("roles", ()))


def _trained(ranks, roles=()):
    """ranks: list of byte strings in order. Special tokens come last."""
    encoding = tiktoken.Encoding(
        "trained", pat_str=PATTERN, mergeable_ranks={r: i for i, r in enumerate(ranks)},
        special_tokens={s: len(ranks) + i for i, s in enumerate((*SPECIALS, *roles))})
    return Tokenizer(encoding, "trained", tuple(roles))


def load(name, roles=()):
    """A public vocabulary ("gpt2", "o200k_base", ...) with our special tokens behind its own.
    tiktoken downloads it once; ValueError, in one line, when the name is unknown or there is no
    network and no cache."""
    names = tiktoken.list_encoding_names()
    if name not in names:
        raise ValueError(f"unknown tokenizer {name!r}; one of: trained {' '.join(names)}")
    try:
        base = tiktoken.get_encoding(name)
    except Exception as error:  # requests' and the operating system's errors both end up here
        raise ValueError(f"tokenizer {name!r} could not be downloaded ({type(error).__name__}); "
                         "set TIKTOKEN_CACHE_DIR to a folder that holds it, "
                         "or use --tokenizer trained") from None
    added = {s: base.n_vocab + i for i, s in enumerate((*SPECIALS, *roles))}
    encoding = tiktoken.Encoding(
        name + "+turns", pat_str=base._pat_str, mergeable_ranks=base._mergeable_ranks,
        special_tokens={**base._special_tokens, **added})
    return Tokenizer(encoding, name, tuple(roles))


def frequent(texts, least=5):
    """Pieces that occur so often, with the space before each: words of an open vocabulary."""
    pieces = Counter(piece for text in texts for piece in re.findall(PATTERN, text))
    return sorted(piece for piece, n in pieces.items() if n >= least)


def of_world(env, texts, roles=()):
    """The vocabulary of a world: every word of a closed one (env.words) is a token; where it speaks
    prose (env.prose), every word often used in these texts."""
    if env.prose:
        words = frequent(texts)
        return train(texts, 512 + len(words), words, roles)
    return train(texts, words=[w for word in env.words for w in (word, " " + word)], roles=roles)


def train(texts, vocab_size=512, words=(), roles=()):
    """Learn byte-pair merges from `texts`, most frequent pair first (ties: the smaller pair), until
    the vocabulary is full or no pair is left that occurs twice. Deterministic.

    texts: list of str.  vocab_size: ids in all, special tokens included.  words: pieces that each
    become one token whatever their frequency (" fridge" with its space and "fridge" without are
    two).  roles: names of more special tokens. """
    ranks = [bytes([i]) for i in range(256)]
    ranks += [w for w in dict.fromkeys(w.encode() for w in words) if len(w) > 1]
    room = vocab_size - len(SPECIALS) - len(roles) - len(ranks)
    if room < 0:
        raise ValueError(f"{vocab_size} ids do not hold 256 bytes, {len(words)} words and "
                         f"{len(SPECIALS) + len(roles)} special tokens")
    closed = set(ranks)
    counts = Counter(piece.encode(errors="replace")
                     for text in texts for piece in re.findall(PATTERN, text))
    pieces = [[bytes([b]) for b in piece] for piece in counts if piece not in closed]
    weight = [n for piece, n in counts.items() if piece not in closed]

    pairs, where = Counter(), defaultdict(set)  # pair -> how often it occurs, and in which pieces
    for i, piece in enumerate(pieces):
        for pair in zip(piece, piece[1:]):
            pairs[pair] += weight[i]
            where[pair].add(i)
    while room > 0 and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        for i in where[best]:  # only the pieces that hold the pair change
            for pair in zip(pieces[i], pieces[i][1:]):
                pairs[pair] -= weight[i]
            pieces[i] = merge(pieces[i], best)
            for pair in zip(pieces[i], pieces[i][1:]):
                pairs[pair] += weight[i]
                where[pair].add(i)
        del pairs[best], where[best]
        token = best[0] + best[1]
        if token not in closed:  # a merge may spell a word of the closed vocabulary
            ranks.append(token)
            closed.add(token)
            room -= 1
    return _trained(ranks, roles)


def merge(piece, pair):
    """["a", "b", "c"], ("b", "c") -> ["a", "bc"]"""
    out, i = [], 0
    while i < len(piece):
        if tuple(piece[i:i + 2]) == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(piece[i])
            i += 1
    return out
