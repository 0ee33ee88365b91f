"""Episodes in the terminal: what everybody said, each author in a colour."""
import itertools
import os
import sys

import run
from rollout import evaluate

BLUE, ORANGE, OFF = "\033[38;5;33m", "\033[38;5;208m", "\033[0m"


def painted(tok, ids, authors, colour):
    """ids, authors (True: the senior) -> text, the senior's blue and the junior's orange; without
    colours the junior's in «marks». A character that both wrote a part of shows as U+FFFD."""
    out = ""
    for senior, part in itertools.groupby(zip(ids, authors), key=lambda x: x[1]):
        text = run.printable(tok.decode([token for token, _ in part]))
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
    ends = {*r.tok.stop_ids, getattr(r.tok, "turn_id", None)}
    rows = [row for batch in batches for row in
            zip(batch.tokens, batch.mask, batch.mask if batch.author is None else batch.author)]
    for (tokens, mask, author), episode in zip(rows, episodes):
        last = int(mask.nonzero().max()) + 1 if bool(mask.any()) else 0
        written = zip(tokens[:last].tolist(), mask.tolist(), author.tolist())
        for model_spoke, turn in itertools.groupby(written, key=lambda x: x[1]):
            turn = [(token, senior) for token, _, senior in turn
                    if token not in ends]
            ids, authors = [token for token, _ in turn], [senior for _, senior in turn]
            print(painted(r.tok, ids, authors, colour) if model_spoke
                  else run.printable(r.tok.decode(ids)))
        grade = "right" if episode["reward"] > 0 else "wrong"
        print(f"{grade}{', cut off' if episode['truncated'] else ''}\n")
