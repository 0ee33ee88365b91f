"""Tokenizer and chat template of a public model, behind the same seam as tokenizer.Tokenizer.

    tok = chat.load("Qwen2.5-0.5B-Instruct")  # a folder in Hugging Face format
    ids = tok.encode_turn("user", "2+2?", first=True)  # ... <|im_start|>assistant\\n
    ids += tok.encode_turn("assistant", "4")           # 4 <|im_end|>

The ids are those of the library `tokenizers`, and those of transformers' apply_chat_template. One
difference is meant: text never becomes a special token. "<|im_end|>" in a question stays text.

How a turn is made: the template is rendered once, when the folder is loaded, with marks in place of
the texts. What stands between the marks is the fixed part of each turn. Special tokens are hard
borders for a tokenizer. So only the stretch between the special token before a text and the one
after it has to be encoded, in one go, as it is when the whole conversation is encoded.

A base model has no template. Its user turn is the text and a newline, the first one behind the bos
token if the tokenizer puts one. Its assistant turn is the text and the eos token.

Needs `tokenizers` and `jinja2`, the extra `hf`. Every failure is a ValueError of one line. Left
out: tools, system prompts of one's own, special tokens that eat blanks beside them (Phi-3). """
import hashlib
import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path

from lib.surface import at_word, surface

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "chat_template.jinja")
NAMES = [f"{kind}_token" for kind in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")]


# ---- text and ids ----

@dataclass
class Frame:
    """How a turn is written: head | left + text + right, encoded in one go | tail."""
    head: list  # ids
    left: str
    right: str
    tail: list  # ids
    clean: Callable  # what the template does to the text: strip it, or nothing
    goes_on: bool  # the text goes on from what stands before it: no space is put in front


@dataclass
class ChatTokenizer:
    library: object = field(repr=False)  # tokenizers.Tokenizer
    folder: str
    names: dict  # {"eos_token": its text, ...}
    hash: str = ""
    end_id: int = None  # ends an assistant turn
    stop_ids: tuple = ()  # end_id, then every other id that ends one
    first: Frame = None  # the first user turn, the later ones, an assistant turn
    later: Frame = None
    says: Frame = None
    day: str = ""  # that the template's preamble names, where it names one
    name = "folder"
    roles = ()

    def __post_init__(self):
        vocab = self.library.get_vocab(with_added_tokens=True)
        self.n_vocab = max(vocab.values(), default=-1) + 1
        if not 0 < self.n_vocab <= 2**24:
            raise ValueError(f"{self.folder}: tokenizer.json has ids below {self.n_vocab:,}; "
                             "take one with 1 to 2**24")
        added = self.library.get_added_tokens_decoder()
        self.special = {token.content: i for i, token in added.items() if token.special}
        spellings = sorted(self.special, key=len, reverse=True)
        self.spelled = re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")
        # the library may write <unk> for what has no token; text becomes no other special token
        unk = {self.names.get("unk_token"), getattr(self.library.model, "unk_token", None)}
        self.forbidden = {i for text, i in self.special.items() if text not in unk}

        # the bytes that each token stands for
        self.byte_level = "ByteLevel" in str(self.library.decoder)
        self.surface = {i: surface(token, self.byte_level) for token, i in vocab.items()}
        self.surface.update((i, token.content.encode()) for i, token in added.items())
        self.holes = set(range(self.n_vocab)) - set(self.surface)

        # SentencePiece puts a space in front of a text: everywhere, or at the very start only
        alone = self.ids("x")
        self.adds_space = bool(alone) and self.surface[alone[0]].startswith(b" ")
        self.only_at_start = False
        if self.adds_space and spellings:
            self.only_at_start = self.ids(spellings[0] + "x")[1:] != alone
        self.library.encode_special_tokens = True  # from now on a special token in a text is text

    def ids(self, text, goes_on=False):
        """What the library makes of a text. Where it goes on from another one, it is encoded behind
        a character, which is cut off again with the space that the library puts in front."""
        for character in "\nx" if goes_on and self.adds_space else ():
            start, whole = self.ids(character), self.ids(character + text)
            if whole[:len(start)] == start:
                return whole[len(start):]
        return guarded(self.folder, self.library.encode, text, add_special_tokens=False).ids

    def encode(self, text, goes_on=False):
        # half of a surrogate pair is no character: it becomes U+FFFD
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = self.ids(text, goes_on)
        if self.forbidden.isdisjoint(ids):
            return ids
        # this vocabulary has pieces that make up a special token: cut behind its first character
        cuts = [0, *(found.start() + 1 for found in self.spelled.finditer(text)), len(text)]
        parts = [self.ids(text[a:b], goes_on or a > 0) for a, b in zip(cuts, cuts[1:])]
        return [i for part in parts for i in part if i not in self.forbidden]

    def decode(self, ids):
        """Ids -> text. A special token shows as its name and an unused id as U+FFFD, so that
        neither passes for an answer."""
        ids = list(map(int, ids))
        if self.byte_level:
            return b"".join(self.surface.get(i, b"\xff") for i in ids).decode(errors="replace")
        parts = []
        for known, run in groupby(ids, self.surface.__contains__):
            run = list(run)
            parts.append(guarded(self.folder, self.library.decode, run, skip_special_tokens=False)
                         if known else "\ufffd" * len(run))
        return "".join(parts)

    def encode_turn(self, role, text, first=False):
        """One turn of a conversation as ids. role "user": from behind the end of the answer before
        to where the model starts to write; "assistant": what the model says, and the end of its
        turn. `first`: the conversation starts here, with the template's preamble.

        What was sampled stays as sampled. Some templates change earlier answers in a longer
        conversation (Qwen3 drops <think> blocks): here no turn changes another one."""
        if role not in ("user", "assistant"):
            raise ValueError(f"role is 'user' or 'assistant', not {role!r}")
        frame = self.says if role == "assistant" else self.first if first else self.later
        # One token may cover the end of `left` and the start of the text, such as two newlines. So
        # do the official ids. Only an answer cannot join what stands before it: the model has read
        # that before it writes. An answer that starts with a newline differs there.
        text = frame.left + frame.clean(text) + frame.right
        return frame.head + self.encode(text, frame.goes_on) + frame.tail

    def role_id(self, role):
        raise ValueError(f"public tokenizers have no role tokens, so none for {role!r}: "
                         "use --tokenizer trained")

    def word_boundary_ids(self, mark=" "):
        """Ids after which a word is taken to be complete. mark " ": tokens that begin with a space;
        mark "\\n": tokens that hold a newline. Never a special token."""
        mark, special = mark.encode(), set(self.special.values())
        return [i for i, text in sorted(self.surface.items()) if i not in special
                and at_word(text, mark)]

    def state(self):
        """What a checkpoint keeps: where the folder is, a hash of what it must hold, and the day of
        a preamble, which would be another one in a run that is resumed tomorrow."""
        return {"name": self.name, "folder": self.folder, "hash": self.hash, "day": self.day}


# ---- files ----

def guarded(what, call, *args, **options):
    """call(...), or a ValueError of one line. Panics of Rust code are no Exceptions."""
    try:
        return call(*args, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        why = " ".join(str(error).split())[:150]
        raise ValueError(f"{what} cannot be used ({type(error).__name__}: {why})") from None


def installed(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        library = name.split(".")[0]
        raise ValueError(f"the library {library} is missing: pip install -e '.[hf]'") from None


def load(folder, day=""):
    """A folder with tokenizer.json, and with what it has of the other files -> ChatTokenizer. day:
    that a template's preamble names, as "2026-12-31"; "": today"""
    path = Path(folder)
    if not (path / "tokenizer.json").is_file():
        raise ValueError(f"no tokenizer.json in {folder}: transformers writes one with "
                         "AutoTokenizer.from_pretrained(...).save_pretrained(...)")
    config = read_json(path / "tokenizer_config.json")
    files = read_json(path / "special_tokens_map.json"), config
    names = {name: text for file in files for name, text in named_tokens(path, file).items()}
    special = [*names.values(), *(text for file in files for text in listed_tokens(file))]
    stops = [i for name in ("generation_config.json", "config.json") for i in stop_ids(path / name)]
    tokenizers = installed("tokenizers")
    library = guarded(path / "tokenizer.json", open_library, tokenizers, path, special, stops)
    tok = ChatTokenizer(library, str(folder), names)
    stops = [library.token_to_id(names.get("eos_token", "")), *stops]
    stops = [i for i in stops if i in tok.surface]

    template = chat_template(path, config)
    if template and "strftime_now" in template:
        tok.day = day or datetime.now().date().isoformat()
    end = learn(tok, renderer(path, template, names, tok.day)) if template else base(tok, config)
    if end is None and not stops:
        raise ValueError(f"{folder} names no stop token: set eos_token in tokenizer_config.json "
                         "or eos_token_id in generation_config.json")
    tok.end_id = stops[0] if end is None else end
    tok.says.tail = [tok.end_id]
    tok.stop_ids = tuple(dict.fromkeys([tok.end_id, *stops]))
    tok.hash = content(path, tok.stop_ids)
    tok.decode(tok.encode("".join(map(chr, range(12000)))))  # what cannot work fails here
    return tok


def from_state(state):
    folder = state["folder"]
    if not Path(folder).is_dir():
        raise ValueError(f"the tokenizer's folder {folder} is missing: put it back")
    tok = load(folder, state.get("day", ""))
    if tok.hash != state["hash"]:
        raise ValueError(f"the tokenizer in {folder} has changed since the checkpoint was written: "
                         "put the old files back")
    return tok


def content(path, stops):
    """A hash of all that decides about ids. config.json also says things that do not."""
    digest = hashlib.sha256(json.dumps(stops).encode())
    for name in FILES:
        data = (path / name).read_bytes() if (path / name).is_file() else b""
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def read_json(path):
    """A JSON object; {} where there is no such file."""
    if not path.is_file():
        return {}
    value = guarded(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(value, dict):
        raise ValueError(f"{path} cannot be used (it holds no JSON object)")
    return value


def named_tokens(path, config):
    """-> {"eos_token": its text, ...}. The files have a text or an object with its "content"."""
    found = {}
    for name in NAMES:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and not isinstance(token, str):
            raise ValueError(f"{path}: {name} = {str(token)[:50]!r} is no token")
        if token:
            found[name] = token
    return found


def stop_ids(path):
    """eos_token_id of a file: a number, a list of them, or nothing -> list"""
    ids = read_json(path).get("eos_token_id")
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if any(type(i) is not int or not 0 <= i < 2**32 for i in ids):
        raise ValueError(f"{path}: eos_token_id = {str(ids)[:50]} is not a list of ids")
    return ids


def listed_tokens(config):
    """Further special tokens that a file lists, beside those that have a name -> their texts"""
    found = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = config.get(name)
        listed = list(listed.values()) if isinstance(listed, dict) else listed
        found += listed if isinstance(listed, list) else []
    texts = [token.get("content") if isinstance(token, dict) else token for token in found]
    return [text for text in texts if isinstance(text, str) and text]


def open_library(tokenizers, path, special, stops):
    """tokenizer.json -> tokenizers.Tokenizer that cuts off, pads and draws at random nothing."""
    library = tokenizers.Tokenizer.from_str((path / "tokenizer.json").read_text(encoding="utf-8"))
    library.no_truncation()
    library.no_padding()
    if getattr(library.model, "dropout", None):
        library.model.dropout = None
    unk = getattr(library.model, "unk_token", None)
    if unk is not None and library.token_to_id(unk) is None:
        library.model.unk_token = None  # else the library raises at the first unknown byte
    # as in transformers, the tokens that the other files name are special
    added = library.get_added_tokens_decoder()
    named = [token for token in special if library.token_to_id(token) is not None]
    named += [added[i].content for i in stops if i in added]
    known = {token.content for token in added.values() if token.special}
    library.add_special_tokens([token for token in named if token not in known])
    return library


# ---- turns ----

def chat_template(path, config):
    """-> the template's source, or None. A file of its own goes before tokenizer_config.json."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return guarded(file, file.read_text, encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry.get("template") for entry in template
                         if isinstance(entry, dict) and entry.get("name") == "default"), 0)
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{path}: chat_template is neither a text nor a list with a 'default'")
    return template


def renderer(path, template, names, day=""):
    """-> render(text, ...): a conversation of these texts, the user's first, up to where the model
    starts to write. A template is a stranger's program, so it runs in jinja2's sandbox."""
    def raise_exception(message):
        raise ValueError(message)

    def tojson(x, ensure_ascii=False, **options):
        return json.dumps(x, ensure_ascii=ensure_ascii, **options)

    def strftime_now(form):
        return datetime.fromisoformat(day).strftime(form)
    world = installed("jinja2.sandbox").ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    world.filters["tojson"] = tojson
    world.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    # {% generation %} only tells transformers which part is the assistant's
    source = re.sub(r"(\{%[-+]?\s*)generation\b", r"\1if true", template)
    source = re.sub(r"(\{%[-+]?\s*)endgeneration\b", r"\1endif", source)
    what = f"the chat template of {path}"
    compiled = guarded(what, world.from_string, source)

    def render(*texts):
        messages = [{"role": "assistant" if i % 2 else "user", "content": text}
                    for i, text in enumerate(texts)]
        return guarded(what, compiled.render, messages=messages, tools=None, documents=None,
                       add_generation_prompt=True, **names)
    return render


def learn(tok, render):
    """Set the frames of `tok` from tiny conversations -> the id that ends an answer, or None."""
    user, answer, again = marks = ["xqFIRSTqx", "xqSECONDqx", "xqTHIRDqx"]  # in no template
    short, long = render(user), render(*marks)
    if [re.findall("xq[A-Z]+qx", text) for text in (short, long)] != [[user], marks]:
        raise ValueError(f"the chat template of {tok.folder} cannot be used "
                         "(it does not write every message once, in order)")
    start, asks = short.split(user)
    _, between, behind, asks_again = re.split("|".join(marks), long)
    clean = str.strip if render(f" {user} ") == short else str
    clean_answer = str.strip if render(user, f" {answer} ", again) == long else str

    # The first special token behind an answer ends it. What the template writes before an answer,
    # and does not give to the model, is part of the answer (Llama 2: a space).
    found = tok.spelled.search(behind)
    closing, opening = (behind[:found.start()], behind[found.end():]) if found else ("", behind)
    own = between[len(asks):] if between.startswith(asks) else ""
    tok.first = framed(tok, start, asks, clean)
    tok.later = framed(tok, opening, asks_again, clean, tok.only_at_start)
    # behind an added token a tokenizer that puts a space everywhere puts one too
    added = tok.library.get_added_tokens_decoder().values()
    apart = any(asks.endswith(token.content) for token in added)
    tok.says = framed(tok, own, closing, clean_answer, tok.only_at_start or not apart)
    return tok.special[found[0]] if found else None


def base(tok, config):
    """Set the frames of a base model. It leaves the end of an answer to the stop ids: None."""
    whole, bos = guarded(tok.folder, tok.library.encode, "x").ids, tok.names.get("bos_token")
    head = [i for i in whole[:1] if i not in tok.ids("x")]
    if not head and config.get("add_bos_token") is True and bos in tok.special:
        head = [tok.special[bos]]
    tok.first = framed(tok, "", "\n")
    tok.first.head = head
    tok.later = framed(tok, "", "\n", goes_on=tok.only_at_start)
    tok.says = framed(tok, "", "", goes_on=True)


def framed(tok, before, after, clean=str, goes_on=False):
    """The fixed parts around a text -> Frame. goes_on: that of the first stretch."""
    *opening, left = tok.spelled.split(before)  # [text, special token, text, ..., text]
    right, *closing = tok.spelled.split(after)
    head, tail = fixed(tok, opening, goes_on), fixed(tok, ["", *closing], True)
    return Frame(head, left, right, tail, clean, tok.only_at_start if opening else goes_on)


def fixed(tok, pieces, goes_on):
    """[text, special token, text, ...] -> ids"""
    ids = []
    for i, piece in enumerate(pieces):
        if i % 2:
            ids.append(tok.special[piece])
        elif piece:
            ids += tok.ids(piece, tok.only_at_start if i else goes_on)
    return ids
