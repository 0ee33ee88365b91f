"""Where ATOD's teacher is heard: T-DUR's weight of each turn, before and after training.

    python -m claims.strip out/atod-house-0 docs/atod/strip.svg

Reads the episodes that the run's final table played (result.json).
"""
import sys

import run
from claims import finished, svg

HEARD, SAID = 54, 22  # characters


def plain(text):
    return " ".join(text.replace("<|turn|>", " ").replace("<|end|>", " ").split())


def draw(strips):
    """strips: {"before": {"turns": [(heard, said, w, d, h)], "won": bool}, "after": ...} -> SVG"""
    said_at, bar_at = 20 + svg.WIDTH * HEARD + 16, 20 + svg.WIDTH * (HEARD + SAID) + 40
    width, y, body = bar_at + 150, 8, []
    for when, found in strips.items():
        y += 26
        verdict = ("right", "won") if found["won"] else ("wrong", "lost")
        body.append(svg.text(20, y, [("title", f"{when} training: "), verdict]))
        body.append(svg.text(said_at, y, [("faint", "what the student did")]))
        body.append(svg.text(bar_at, y, [("faint", "T-DUR's weight w")]))
        for heard, said, w, _, _ in found["turns"]:
            y += svg.LINE
            body.append(svg.text(20, y, [("faint", svg.shortened(plain(heard), HEARD))]))
            body.append(svg.text(said_at, y, "> " + svg.shortened(plain(said), SAID)))
            body.append(svg.bar(bar_at, y - 10, 90, w))
            body.append(svg.text(bar_at + 100, y, f"{w:.2f}"))
        y += 12
    title = "an episode before and after training, with T-DUR's weight of each turn"
    return svg.document(width, y + 12, title, body)


def of_run(folder):
    """The picture of a finished run's strips."""
    strips = (finished(folder) or {}).get("strips")
    if not strips:
        raise run.Stop(f"{folder} holds no finished run of --method atod")
    return draw(strips)


def main(argv=None):
    return svg.command(argv, __doc__, of_run)


if __name__ == "__main__":
    sys.exit(main())
