"""A person plays any world in a terminal: what `python sample.py --env NAME --play` does."""
import contextlib
import random
import sys
import unicodedata

from envs.lib.text import clean

HELP = """\
?      lists the commands that do something now
hint   what an expert would say now
score  your turns and your reward so far
quit   ends the game; so does Ctrl-D
Anything else is said to the world. A line that ends in a backslash goes on in the next line;
the arrow keys bring back what you said before."""


def by_hand(env, task, split):
    """A person plays one game, a command a line. Words of HELP are answered here, unless the world
    itself knows them as commands."""
    with contextlib.suppress(AttributeError, OSError):  # where it is no terminal
        sys.stdin.reconfigure(errors="replace")
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401: from here on the arrow keys edit and bring back lines
        show("Type a command, or: help  ?  hint  score  quit")
    show(env.reset(task % (env.tasks(split) or task + 1), split))
    turns, reward = 0, 0.0
    while (said := typed(f"turn {turns + 1}> " if env.max_turns > 1 else "answer> ")) != "quit":
        if said in ("?", "help", "hint", "score") and said not in (actions := env.actions()):
            if said == "?":
                show(", ".join(actions) or "there is no list of commands")
            elif said == "help":
                show(HELP)
            elif said == "hint":
                show(hint(env))
            else:
                show(f"turn {turns} of {env.max_turns}, reward {reward:.2f} of 1")
            continue
        step = env.step(said)
        turns, reward = turns + 1, reward + step.reward
        if step.observation:
            show(step.observation)
        if step.done:
            if not step.info["success"] and (answers := expert(env)):
                show(f"A right answer:\n{answers[-1]}")
            show(outcome(step.info, turns))
            return
    show(f"You left after {in_turns(turns)}, reward {reward:.2f}.")


def expert(env):
    """What an expert would say from here to the end, a text a turn; None where nobody knows."""
    for skill in ("expert", "junior", "senior"):
        if skill in env.targets:
            return env.demo(random.Random(0), skill)
    return None


def hint(env):
    """The expert's next move. Of the one answer to a question: its first line."""
    answers = expert(env)
    if not answers:
        return "there is no hint from here"
    return answers[0] if env.max_turns > 1 else answers[0].split("\n")[0]


def typed(prompt):
    """What a person says, never empty; "quit" when there is nothing more. In a terminal an empty
    line is no answer; in a pipe it ends the game."""
    while True:
        lines = []
        try:
            while not lines or lines[-1].endswith("\\"):
                lines.append(input("| " if lines else prompt).rstrip())
        except (EOFError, KeyboardInterrupt):
            print()
            return "quit"
        said = clean("\n".join(line.removesuffix("\\") for line in lines).strip())
        if said or not sys.stdin.isatty():
            return said or "quit"


def show(text):
    """Print it, a character that the terminal does not have as "?". Control characters are left
    out: a text is no command to the terminal."""
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def in_turns(n):
    return f"{n} turn{'s' * (n != 1)}"


def outcome(info, turns):
    """"Solved in 7 turns, score 1.00." """
    if info["success"]:
        how = f"Solved in {in_turns(turns)}"
    else:
        how = "Out of turns" if info.get("truncated") else "Lost"  # a question has no turns to lose
    scores = [f"{name} {info[name]:.2f}" for name in ("score", "f1") if name in info]
    return ", ".join([how, *scores]) + "."
