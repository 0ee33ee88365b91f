"""HTML of a page that stands alone: what pages.py says of a run -> one file, no network.

Whatever a model, a world or an option says goes through `safe` (HTML) or `data` (JSON in a script
tag), and nothing else writes text. Behind them stands a policy in the page itself: it loads
nothing, and runs the one script whose hash it names. """
import base64
import hashlib
import html
import json
import math
import os
import re

import run

END = "■"  # the end token, an action like any other
HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = (0.1, 0.5, 1, 2, 4, 8)  # nats at which a token is shaded more
WHO = {"senior": "senior", "student": "student", "after": "model"}  # the first reader, as an author
MARKS = {"right": "✓", "wrong": "✗", "missing": "○", "malformed": "✗ malformed:"}
MEAN = {"right": "true", "wrong": "not true", "missing": "true and not said",
        "malformed": "malformed"}  # for screen readers

NAMES = {"tandem": "Tandem RL", "grpo": "GRPO", "sft": "Demonstrations", "opd":
         "On-policy distillation", "atod": "ATOD", "worldmodel": "A world model of text"}
ABOUT = {
    "tandem": """A trained senior and a frozen, weaker junior write one chain of thought together.
At the ends of words a coin decides who writes on. The reward of the team's answer trains the
senior, on the tokens that it wrote. So the senior learns to write what the junior can continue
(arXiv 2606.28166). In step handoff the two take turns line by line; in training handoff the coin
decides, as in training.""",
    "grpo": """One model writes several answers to a question, alone. An answer that is better than
the others of its group is made more likely (GRPO).""",
    "sft": "One model learns to continue texts as demonstrations do.",
    "atod": """A small student plays. A larger teacher says of every token that the student wrote
how likely it would have been for the teacher. This dense signal (times kappa) fades while the
reward of the game (times rho) grows. T-DUR weighs the turns: w is near 1 where teacher and
student disagree (d, nats a token) or where the student is unsure (h, nats a token), always
relative to the other turns of the game (arXiv 2606.27814).""",
    "worldmodel": """A model that predicts what a text world will say after an action. In its strict
form it sees the history once, writes a list of facts (its state), and from then on sees only
its own state and the action (arXiv 2606.27681)."""}
ABOUT["opd"] = ABOUT["atod"].replace("fades while the\nreward of the game (times rho) grows",
                                     "is\nall it learns from here (rho is 0)")


# ---- text that others wrote ----

def clean(text):
    """Text without what could steer a terminal, a line or an editor: control characters, half
    characters and marks that turn the direction of writing around show as U+FFFD."""
    return re.sub("[\ud800-\udfff\u202a-\u202e\u2066-\u2069]", "\ufffd", run.printable(text))


def safe(text):
    """Any text -> HTML, for content and for attributes in double quotes."""
    return html.escape(clean(str(text)), quote=True)


def data(value):
    """JSON for a script tag: nothing in it can end the tag or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def visible(text):
    """A token as a word of its own: blanks at its ends and line ends can be seen."""
    text = clean(text).replace("\n", "↵").replace("\t", "⇥")
    inner = text.strip(" ")
    if not inner:
        return "␣" * len(text) or "∅"
    left = len(text) - len(text.lstrip(" "))
    return "␣" * left + inner + "␣" * (len(text) - left - len(inner))


def foreign(tag, kind, text):
    """An element with text of an unknown language."""
    return f'<{tag} class="{kind}" lang="" translate="no">{safe(text)}</{tag}>'


def command(text):
    """A command that breaks between its words only."""
    words = "".join(f'<span class="word">{safe(word)}</span>' for word in text.split(" "))
    return f'<code translate="no">{words}</code>'


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


# ---- the page ----

def document(page):
    """-> HTML, all of it"""
    with open(os.path.join(HERE, "page.html"), encoding="utf-8") as file:
        template = file.read()
    with open(os.path.join(HERE, "page.js"), encoding="utf-8") as file:
        script = file.read()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
              "base-uri 'none'; form-action 'none'")
    name = NAMES.get(page["method"], page["method"])  # your own method has none here
    title = f"{name} on {page['options']['env']}, seed {page['options']['seed']}"
    told = {"readers": page.get("readers"), "words": [], "chains": [],
            "authors": [WHO.get((page.get("readers") or [""])[0]), "junior"]}
    found = {"title": safe(title), "policy": policy, "body": body(page, title, told),
             "script": script, "data": data({k: x for k, x in told.items() if k != "index"})}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: found[match[1]], template)  # once: text is data


def body(page, title, told):
    sections = [("read", "How to read it", how_to_read(page))]
    if "tasks" in page:
        name = "Games, turn by turn" if page["readers"][0] == "student" else "Chains"
        sections.append(("chains", name, "".join(task(page, t, told) for t in page["tasks"])))
    else:
        sections.append(("worlds", "Imagined games", "".join(
            world(page, i, w) for i, w in enumerate(page["worlds"]))))
    if page["charts"]:
        sections.append(("curves", "Curves of the training", '<div class="charts">' + "".join(
            chart(**c) for c in page["charts"]) + "</div>"))
    if page["table"]:
        sections.append(("table", "Final table", final_table(page)))
    sections.append(("options", "Commands and options", options(page)))
    nav = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    parts = "".join(f'<section id="{key}"><h2>{name}</h2>{inner}</section>'
                    for key, name, inner in sections)
    return (f'<header><h1>{safe(title)}</h1><p>{ABOUT.get(page["method"], "")}</p>'
            f'<p class="faint">A run of {page["step"]} updates. It was made by<br>'
            f'{command(page["command"])}</p>'
            f'<nav aria-label="Contents">{nav}</nav></header><main id="main">{parts}</main>')


def how_to_read(page):
    if "worlds" in page:
        return ('<p>Every fact is marked: '
                + " ".join(fact(name, kind) for kind, name in (
                    ("right", "true"), ("wrong", "not true"), ("missing", "true, but not said")))
                + '. A state is compared with all that is true in the game; of the facts that the '
                'next observation needs, those that it lacks are shown too. F1 is the harmonic '
                'mean of precision and recall of an observation\'s facts: 1 is perfect. '
                'The model writes what it finds likeliest.</p>')
    first, second = page["readers"]
    author = WHO[first]
    who = f'<span class="t">{author}: blue, solid line</span>'
    if author == "senior":
        who += ' and <span class="t junior">junior: orange, dotted line</span>'
    names = {"after": "the model after training", "before": "the model before training"}
    named = [names.get(name, f"the {name}") for name in (first, second)]
    marks = ["0", *(f"{x:g}" for x in STEPS)]
    scale = "".join(f'<span class="t s{i}">{low}{"+" if i == len(STEPS) else ""}</span>'
                    for i, low in enumerate(marks))
    return (
        f'<p class="key">Who wrote a token: {who}. {END} ends an answer, ↵ a line, and grey text '
        "was said by the world.</p>"
        f'<p class="scale">The stronger a token is shaded, the more it surprises {named[1]}, in '
        f'nats from: {scale}</p><p>Surprise is &minus;log p: 0 is certain, 0.7 a coin, 2.3 one in '
        "ten, 9 one in eight thousand. "
        f'<span class="screen">Point at a token, touch it, or press Tab and then the arrow keys, '
        f"and a panel shows how likely it was for {named[0]} and {named[1]}, and what each would "
        "rather have written there. Escape closes the panel.</span></p>"
        f'<p class="faint">Drawn at temperature {page["temperature"]:g}, and probabilities are '
        f'{"those of temperature 1" if page["temperature"] == 0 else "those there"}.</p>')


# ---- chains ----

def task(page, found, told):
    """What was said to one task: before and after training, by each team."""
    cells = found["cells"]
    firsts = {cell["parts"][0].get("heard") for cell in cells if cell["parts"]}
    same = len(firsts) == 1 and None not in firsts
    question = foreign("p", "heard", firsts.copy().pop()) if same else ""
    columns = len(cells) // 2 if len(cells) > 2 else 2
    inner = "".join(chain(cell, page["readers"], told, skip=same) for cell in cells)
    return (f'<h3>{safe(page["split"].capitalize())} task {found["task"]}</h3>{question}'
            f'<div class="cells" style="--columns:{columns}">{inner}</div>')


def chain(cell, readers, told, skip):
    """One episode: what the world said, and the tokens of those who wrote."""
    sign = "✓ " if cell["won"] else "✗ "
    ends = ", ".join([sign + (("won" if cell["won"] else "lost") if readers[0] == "student" else
                              ("right" if cell["won"] else "wrong")), *cell["notes"]])
    tokens = [t for part in cell["parts"] for t in part.get("said", [])]
    mean = -sum(t["logp"][1] for t in tokens) / max(1, len(tokens))
    share = sum(t["senior"] for t in tokens) / max(1, len(tokens))
    parts = [f"{len(tokens)} tokens"]
    if readers[0] == "senior" and share < 1:
        parts.append(f"senior {100 * share:.0f} %")
    owner = {"before": "the model before training"}.get(readers[1], f"the {readers[1]}")
    parts.append(f"surprise of {owner}: {mean:.2f} nats a token")
    number, told_here = len(told["chains"]), []
    told["chains"].append(told_here)
    inner = [said(part, cell["title"], number, told, told_here, readers)
             if "said" in part else foreign("p", "heard", part["heard"])
             for part in cell["parts"][skip:] if part.get("heard") != ""]
    return (f'<article class="cell"><h4>{safe(cell["title"])}</h4><p>'
            f'<span class="verdict {"right" if cell["won"] else "wrong"}">{safe(ends)}</span> '
            f'<span class="faint">&middot; {"; ".join(parts)}</span></p>{"".join(inner)}</article>')


def said(part, title, number, told, told_here, readers):
    """The tokens of one turn, for the eye and (told) for the panel."""
    spans = []
    for t in part["said"]:
        n = len(told_here)
        told_here.append([word(told, t["text"]), int(not t["senior"]),
                          [round(x, 3) for x in t["logp"]],
                          [[[word(told, text), round(p, 4)] for text, p in best]
                           for best in t["rather"]]])
        shade = sum(-t["logp"][1] >= step for step in STEPS)
        kind = f"t s{shade}" + ("" if t["senior"] else " junior")
        shown = safe(t["text"]).replace("\n", "↵\n") or "∅"
        spans.append(f'<span class="{kind}" role="option" tabindex="{0 if n == 0 else -1}" '
                     f'data-n="{n}">{shown}</span>')
    rest = f'<p class="faint">... and {part["cut"]} more tokens</p>' if part["cut"] else ""
    if not spans:
        return rest
    head = weights(part, readers) if "weights" in part else ""
    return (f'{head}<div class="chain" lang="" translate="no" role="listbox" '
            f'aria-orientation="horizontal" aria-label="{safe(title)}: tokens, arrow keys move" '
            f'data-chain="{number}">{"".join(spans)}</div>{rest}')


def word(told, text):
    """The number of a word in the page's list."""
    index = told.setdefault("index", {})
    text = visible(text)
    if text not in index:
        index[text] = len(told["words"])
        told["words"].append(text)
    return index[text]


def weights(part, readers):
    """T-DUR's weight of a turn, and what both say of the whole of it."""
    w, d, h = (part["weights"][name] for name in "wdh")
    sums = [sum(t["logp"][i] for t in part["said"]) for i in (0, 1)]
    return (f'<div class="weights"><span><b>w {w:.2f}</b> <span class="track" aria-hidden="true">'
            f'<span class="bar" style="--w:{100 * w:.0f}%"></span></span></span>'
            f'<span>d {d:.3f}</span><span>h {h:.3f}</span>'
            f'<span>log p: {readers[0]} {sums[0]:.2f}, {readers[1]} {sums[1]:.2f}</span></div>'
            ).replace(" -", " &minus;")


# ---- a world model ----

def fact(text, kind):
    """A fact with its mark; the mark's meaning is said aloud."""
    return (f'<span class="fact {kind}"><span role="img" aria-label="{MEAN[kind]}:">{MARKS[kind]}'
            f'</span> {safe(text)}</span>')


def facts(found):
    return " ".join(fact(*pair) for pair in found) or '<span class="faint">no facts</span>'


def world(page, i, found):
    """One game: the history, the states, nine imagined steps, and what a swap changes."""
    lines = "".join(f"<li>{f'<b>&gt; {safe(action)}</b><br>' if action else ''}"
                    f"{safe(text)}</li>" for action, text in found["history"])
    first = found["steps"][0]
    pairs = [("Action", f'<b>&gt; {safe(first["action"])}</b>')]
    if found["has_state"]:
        pairs += [("State s, before the action", facts(first["state"])),
                  ("Next state s'", facts(first["next"]))]
    pairs += [("Prediction", f'{safe(first["text"])}<br>{facts(first["observation"])}'),
              ("Truth", safe(first["truth"]))]
    about = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in pairs)
    swap = swapped(found) if found["swap"] else (
        '<p class="faint">No other example has this action and another outcome.</p>')
    return (f'<h3>{safe(page["split"].capitalize())} example {i} ({safe(found["formulation"])})'
            f'</h3><div class="cells" style="--columns:2">'
            f'<article class="cell"><h4>The history that the model reads</h4>'
            f'<ol lang="" translate="no">{lines}</ol></article>'
            f'<article class="cell"><h4>One step</h4><dl translate="no">{about}</dl></article>'
            f"</div><h4>From there on, imagined beside the truth</h4>{rolled(found)}"
            f"<h4>What leaks when the history is swapped</h4>{swap}")


def table(headings, rows, kind="cards"):
    """headings: texts; rows: lists of HTML, the first cell heads its row."""
    head = "".join(f'<th scope="col">{safe(name)}</th>' for name in headings)
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td data-of="{safe(name)}:">{cell}</td>'
                        for name, cell in zip(headings[1:], others))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (f'<table class="{kind}"><thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(lines)}</tbody></table>')


def rolled(found):
    """The imagined steps, each beside what really happened."""
    headings = ["Action", *(["Next state s'"] if found["has_state"] else []), "Imagined", "Truth",
                "F1"]
    rows = []
    for h, step in enumerate(found["steps"], 1):
        state = [facts(step["next"])] if found["has_state"] else []
        rows.append([f'{h}. &gt; {safe(step["action"])}', *state, facts(step["observation"]),
                     safe(step["truth"]), f'<span class="number">{step["f1"]:.2f}</span>'])
    return table(headings, rows, "cards steps")


def swapped(found):
    swap = found["swap"]
    said = (f'<p>The action stays <b>&gt; {safe(swap["action"])}</b>, and the truth is '
            f'“{safe(swap["truth"])}”. The other history ends in “{safe(swap["other"])}”.')
    if swap["leak"] is not None:
        leak = ("nothing leaks, to the last bit" if swap["leak"] == 0 else
                "the history reaches the prediction past the state")
        said += (" With the state held and the history swapped, the largest change of a logit of "
                 f'the next state is <b>{swap["leak"]:.3g}</b>: {leak}.')
    rows = [[safe(row["name"]), safe(row["text"]), facts(row["observation"]),
             f'<span class="number">{row["f1"]:.2f}</span>'] for row in swap["rows"]]
    return f'{said}</p>{table(["Given", "Prediction", "Its facts", "F1"], rows, "cards steps")}'


# ---- curves ----

W, H, LEFT, RIGHT, TOP, BOTTOM = 420, 250, 46, 12, 26, 30  # of a chart, and its margins


def ticks(low, high, n=5):
    """Round numbers from low to high, about n of them."""
    raw = (high - low) / n
    size = 10.0 ** math.floor(math.log10(raw))
    size = next(size * k for k in (1, 2, 5, 10) if size * k >= raw)
    return [k * size for k in range(math.ceil(low / size - 1e-9),
                                    math.floor(high / size + 1e-9) + 1)]


def chart(title, y, lines):
    """Curves of {name: [(update, value)]} -> a figure, readable without colours."""
    xs, ys = zip(*(point for points in lines.values() for point in points))
    right, low, high = max(*xs, 1), min(0.0, *ys), max(ys)
    high = 1.0 if 0.5 < high <= 1 else high if high > low else low + 1

    def at(x, value):
        return (LEFT + (W - LEFT - RIGHT) * x / right,
                TOP + (H - TOP - BOTTOM) * (high - value) / (high - low))
    parts = [f'<text x="4" y="14">{safe(y)}</text>',
             f'<text x="{W - 4}" y="{H - 2}" text-anchor="end">update</text>']
    for tick in ticks(low, high):
        h = at(0, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{W - RIGHT}" y1="{h:.1f}" y2="{h:.1f}"/>'
                     f'<text x="{LEFT - 6}" y="{h + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in ticks(0, right, 4):
        if tick == round(tick) and at(tick, 0)[0] < W - 70:
            parts.append(f'<text x="{at(tick, 0)[0]:.1f}" y="{H - 2}" text-anchor="middle">'
                         f'{tick:.0f}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{W - RIGHT}" y1="{at(0, low)[1]:.1f}" '
                 f'y2="{at(0, low)[1]:.1f}"/>')
    notes = []
    for i, (name, points) in enumerate(lines.items()):
        where = [at(*point) for point in points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in where)
        parts.append(f'<polyline class="curve c{i}" points="{path}"/>')
        if len(points) <= 20:
            parts += [f'<circle class="dot c{i}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>'
                      for a, b in where]
        (x, first), (z, last) = points[0], points[-1]
        text = f"{name}: {first:.3g} at update {x:.0f}, {last:.3g} at update {z:.0f}"
        notes.append((i, text))
    label = safe(f"{title}, {y}, by update. " + ". ".join(text for _, text in notes))
    keys = "".join(
        f'<li><svg viewBox="0 0 36 12" aria-hidden="true"><line class="curve c{i}" x1="0" x2="36" '
        f'y1="6" y2="6"/></svg> {safe(text)}</li>' for i, text in notes)
    return (f'<figure><h3>{safe(title)}</h3><svg viewBox="0 0 {W} {H}" role="img" '
            f'aria-label="{label}">{"".join(parts)}</svg><figcaption><ul>{keys}</ul></figcaption>'
            "</figure>")


# ---- the final table, options ----

def scrolling(name, inner):
    """What may be wider than a phone scrolls in itself, by keyboard too."""
    return (f'<div class="scroll" role="region" tabindex="0" aria-label="{safe(name)}">{inner}'
            "</div>")


def final_table(page):
    n, columns = page["table"]["n"], page["table"]["columns"]
    names = dict.fromkeys(name for column in reversed(columns.values()) for name in column)
    rows = [[safe(name), *(f'<span class="number">{safe(column.get(name, "-")).replace("+-", "±")}'
                           "</span>" for column in columns.values())] for name in names]
    half = f" (handoff: {run.tasks_of('handoff', n)})" if "handoff" in " ".join(names) else ""
    split = safe(page["options"].get("final_split", "test"))
    return (f"<p>{n} {split} tasks{half}, which training did not see; ± is a 95% interval over "
            "tasks.</p>" + scrolling("Final table", table(["", *columns], rows, "final")))


def options(page):
    rows = [[f"<code>{safe(run.flag(name))}</code>", safe(value if value != "" else '""'),
             safe(page["comments"].get(name, ""))] for name, value in page["options"].items()]
    return (f'<p>This page was made by<br>{command(page["drawn"])}</p>'
            "<details><summary>All options of the run, defaults included</summary>"
            + table(["Option", "Value", "Meaning"], rows) + "</details>")
