"""Episodes in the terminal: what everybody said, each author in a colour."""
import itertools
import os
import sys

import run
from rollout import evaluate, succeeded
from tokenizer import by_author

BLUE, ORANGE, OFF = "\033[38;5;33m", "\033[38;5;208m", "\033[0m"


def painted(tok, ids, authors, colour):
    """ids, authors (True: the senior) -> text, the senior's blue and the junior's orange; without
    colours the junior's in «marks». A character that both wrote a part of shows as U+FFFD."""
    out = ""
    for senior, text in by_author(tok, ids, authors):
        text = run.printable(text)
        if colour:
            text = f"{BLUE if senior else ORANGE}{text}{OFF}"
        elif not senior:
            said = text.rstrip("\n")
            text = f"«{said}»" + text[len(said):]  # a mark closes on its own line
        out += text
    return out


def print_episodes(title, sampler, r, n):
    """Play the first n tasks of the run's final split and print what everybody said."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    where = (r.env, r.tok, r.cfg, r.cfg.final_split)
    _, batches, episodes = evaluate(sampler, *where, n, 1, r.cfg.seed)
    print(f"\n=== {title}")
    episodes = iter(episodes)
    for batch in batches:
        # an episode that outgrew its context has several rows
        for number in batch.episode.unique():
            for row in (batch.episode == number).nonzero()[:, 0]:
                print_row(batch[row[None]], r.tok, colour)
            episode = next(episodes)
            grade = "right" if succeeded(episode) else "wrong"
            print(f"{grade}{', cut off' if episode['truncated'] else ''}\n")


def print_row(row, tok, colour):
    """What was said in one row of an episode, a turn a line. row: Rows of [1, T]"""
    mask = row.mask[0]
    author = mask if row.author is None else row.author[0]
    ends = {*tok.stop_ids, getattr(tok, "turn_id", None)}
    last = int(mask.nonzero().max()) + 1 if bool(mask.any()) else 0
    ids = row.tokens[0, :last].tolist()
    written = zip(ids, author.tolist(), mask.tolist(), [token in ends for token in ids])
    for (model_spoke, ended), turn in itertools.groupby(written, key=lambda x: x[2:]):
        if not ended:
            ids, authors, *_ = zip(*turn)
            print(painted(tok, ids, authors, colour) if model_spoke
                  else run.printable(tok.decode(ids)))


def turns_of(rows, tok):
    """One episode's rows, in order -> [(what it heard, what it said, number of the turn)]"""
    out = []
    for tokens, turns in zip(rows.tokens.tolist(), rows.turn_of_token.tolist()):
        heard, last = [], -1
        for token, turn in zip(tokens, turns):
            if turn < 0:
                heard.append(token)
                continue
            if turn != last:
                out.append((tok.decode(heard), [], turn))
                heard, last = [], turn
            out[-1][1].append(token)
    return [(before, tok.decode(said), turn) for before, said, turn in out]


def weighed_text(turns):
    """[(what it heard, what it said, T-DUR's w, d and h)] -> text, a bar for the weight of each."""
    def plain(text):
        return run.printable(text.replace("<|turn|>", "").replace("<|end|>", "").strip())
    return "\n".join(f"{plain(heard):50} > {plain(said):22} w {w:.2f} {'#' * round(10 * w):10}  "
                     f"d {d:.3f}  h {h:.3f}" for heard, said, w, d, h in turns)
