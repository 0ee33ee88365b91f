"""The front page's picture: one test problem, before and after tandem training, alone and together.

    python -m claims.chains out/tandem-arithmetic-0 docs/tandem/chains.svg

Draws what the senior writes alone before training, alone after, and what the team writes after,
each token in its author's colour. The problem is a typical one: the first test problem that the
senior answers in its private notation before training, and on which each of the three is what it is
most often, right or wrong. Below stands how often each is right on all test problems.
"""
import sys

import run
import tandem
import train
from claims import finished, svg
from rollout import evaluate
from tokenizer import by_author

TITLES = ("the senior alone, before", "the senior alone, after", "the team, after")
LONGEST = 30  # characters of a line


def play(sampler, r, n):
    """A chain for each of n test problems -> [{"parts": [(author's class, text)], "right",
    "private"}]"""
    where = r.env, r.tok, r.cfg, r.cfg.final_split
    _, batches, episodes = evaluate(sampler, *where, n, 1, r.cfg.seed)
    rows = [row for batch in batches for row in
            zip(batch.tokens, batch.mask, batch.mask if batch.author is None else batch.author)]
    return [{"parts": authored(r.tok, *row), "right": bool(episode["success"]),
             "private": episode.get("private", 0) > 0.5} for row, episode in zip(rows, episodes)]


def authored(tok, tokens, mask, author):
    """One row's sampled text -> [(author's class, text)]"""
    columns = zip(tokens.tolist(), mask.tolist(), author.tolist())
    written = [(token, senior) for token, sampled, senior in columns
               if sampled and token != tok.end_id]
    ids, authors = zip(*written) if written else ((), ())
    parts = by_author(tok, ids, authors)
    return [("senior" if senior else "junior", text) for senior, text in parts]


def typical(played):
    """played: for each of the three a list over problems -> the number of the problem to show"""
    often = [2 * sum(chain["right"] for chain in chains) > len(chains) for chains in played]
    for i, chains in enumerate(zip(*played)):
        if chains[0]["private"] and [chain["right"] for chain in chains] == often:
            return i
    raise run.Stop("no test problem is answered in private notation before training, and as usual")


def lines_of(parts):
    """[(class, text)] -> the same, a list a line, cut where a line grows too long"""
    lines = [[]]
    for kind, text in parts:
        for i, piece in enumerate(text.split("\n")):
            if i:
                lines.append([])
            while piece:
                room = LONGEST - sum(len(other) for _, other in lines[-1])
                if not room:
                    lines.append([])
                    continue
                lines[-1].append((kind, piece[:room]))
                piece = piece[room:]
    return lines


def draw(question, columns):
    """columns: [(title, [(class, text)], is it right, how often it is, None if unknown)] -> SVG"""
    columns = [(title, lines_of(parts), right, rate) for title, parts, right, rate in columns]
    lengths = [sum(len(text) for _, text in line) for _, lines, *_ in columns for line in lines]
    longest = max([*lengths, *(len(title) for title, *_ in columns)])
    across = max(svg.WIDTH * longest + 24, 280)
    body = [svg.text(20, 30, [("faint", "problem  "), ("title", question.replace("\n", " "))])]
    key = [("faint", "written by "), ("senior", "senior"), ("faint", ", "), ("junior", "junior")]
    body.append(svg.text(20 + 2 * across, 30, key))
    below = 92 + svg.LINE * max(len(lines) for _, lines, *_ in columns)
    for i, (title, lines, right, rate) in enumerate(columns):
        x = 20 + i * across
        verdict = [("right", "✓ right") if right else ("wrong", "✗ wrong")]
        if rate is not None:
            verdict.append(("faint", f"  (right: {100 * rate:.0f} in 100)"))
        body.append(svg.text(x, 62, [("title", title)]))
        body += [svg.text(x, 66 + svg.LINE * (j + 1), line) for j, line in enumerate(lines)]
        body.append(svg.text(x, below, verdict))
    verdicts = "; ".join(f"{title}: {'right' if right else 'wrong'}"
                         for title, _, right, _ in columns)
    return svg.document(16 + len(columns) * across, below + 18, f"{question}. {verdicts}", body)


def columns_of(folder, n=128):
    """A tandem run's folder -> the question, the columns that draw() takes"""
    _, r = train.reopen(folder, "tandem")
    if r.env.first.max_turns > 1:
        raise run.Stop(f"{folder}: a picture of chains is of questions of one turn")
    played = [play(r.solo, r, n) for _ in run.before_and_after(r)]
    played.append(play(tandem.together(r, *tandem.handoffs(r.cfg)["training handoff"]), r, n))
    task = typical(played)
    rates = [None] * 3
    if result := finished(folder):
        rates = [result[when][f"{how} pass@1"][0] for when, how in
                 (("before", "solo"), ("after", "solo"), ("after", "training handoff"))]
    chains = [(chains[task]["parts"], chains[task]["right"]) for chains in played]
    question = r.env.first.reset(task, r.cfg.final_split)
    return question, [(title, *chain, rate) for title, chain, rate in zip(TITLES, chains, rates)]


def main(argv=None):
    return svg.command(argv, __doc__, lambda folder: draw(*columns_of(folder)))


if __name__ == "__main__":
    sys.exit(main())
