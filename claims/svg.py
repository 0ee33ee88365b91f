"""A picture of text as SVG, readable on light and on dark pages."""
import argparse
import sys
from xml.sax.saxutils import escape

import run

WIDTH = 7.9  # of a character of the monospace font below, with some room
LINE = 20  # pixels
# Okabe and Ito's blue and orange (senior, junior); brighter ones where the page is dark
STYLE = """
.panel { fill: #ffffff; stroke: #d0d7de; }
text { fill: #1f2328; font-size: 13px; white-space: pre;
  font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.title { font-weight: bold; }
.faint { fill: #57606a; }
.senior { fill: #0072B2; }
.junior { fill: #D55E00; font-weight: bold; }
.right { fill: #00795A; font-weight: bold; }
.wrong { fill: #B3261E; font-weight: bold; }
.bar { fill: #0072B2; }
.track { fill: #eaeef2; }
@media (prefers-color-scheme: dark) {
.panel { fill: #161b22; stroke: #30363d; }
text { fill: #e6edf3; }
.faint { fill: #9198a1; }
.senior { fill: #56B4E9; }
.junior { fill: #E69F00; }
.right { fill: #3FC796; }
.wrong { fill: #FF8A80; }
.bar { fill: #56B4E9; }
.track { fill: #30363d; }
}"""


def text(x, y, parts):
    """A line. parts: a text, or [(class, text)]"""
    parts = [("", parts)] if isinstance(parts, str) else parts
    spans = "".join(f'<tspan class="{kind}">{clean(part)}</tspan>' if kind else clean(part)
                    for kind, part in parts)
    return f'<text x="{x:g}" y="{y:g}" xml:space="preserve">{spans}</text>'


def clean(text):
    """What XML may hold: escaped, and without characters that XML has none for."""
    return escape("".join(c if c >= " " and c not in "\ufffe\uffff" else " " for c in text))


def bar(x, y, width, share):
    """A horizontal bar, filled to a share."""
    return "".join(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{w:.1f}" height="11" rx="2"/>'
                   for kind, w in (("track", width), ("bar", width * share)))


def document(width, height, title, body):
    """The picture, on a panel of its own. title: for those who cannot see it; body: elements"""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>{clean(title)}</title>", f"<style>{STYLE}</style>",
        f'<rect class="panel" x="1" y="1" rx="8" width="{width - 2:g}" height="{height - 2:g}"/>',
        *body, "</svg>", ""])


def shortened(text, longest):
    return text if len(text) <= longest else text[:longest - 1] + "…"


def command(argv, about, picture_of):
    """RUN PICTURE: write picture_of(RUN), an SVG, into the file PICTURE -> exit code"""
    parser = argparse.ArgumentParser(description=about,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's output folder")
    parser.add_argument("picture", help="the SVG file to write")
    args = parser.parse_args(argv)
    try:
        run.write(args.picture, picture_of(args.run))
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    return 0
