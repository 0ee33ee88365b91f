"""What a page of a run shows, as plain data: chains, imagined worlds, weighed turns, curves.

    python sample.py out/tandem-arithmetic-0 --html tandem.html

The page is one file without a network, to be opened from a stick. HTML is made in lib/page.py and
nowhere else; here is what it says. A *reader* is a model that is asked what it thinks of a text
that was written: for tandem senior and junior, for ATOD student and teacher, for GRPO and sft the
model after and before training. The second reader's surprise shades a token, because that is the
number which each of these methods is about: can the junior follow, what does the teacher object to,
how far did training go. Surprise is -log p in nats: 0 is certain, 0.7 a coin, 2.3 one in ten. """
import contextlib
import dataclasses
import itertools
import os
import shlex
import tempfile

import torch

import atod
import imagine
import run
import worldmodel
from envs.record import fact_f1
from lib import page
from lib.start import checkpoint_of
from rollout import evaluate, succeeded
from tandem import handoffs, together
from tokenizer import continued

TOKENS = 6000  # of all chains of a page
LONGEST = 3000  # characters that the world says at a time
LARGEST = 2_000_000  # bytes of a page
FAVOURITES = 3  # tokens that a reader would rather have written
POINTS = 240  # of a curve; a longer run's are averaged
PARTNERS = 128  # examples among which a history to swap with is looked for


def check(path):
    """Stop, before the work, when no page can be written there."""
    try:
        if os.path.isdir(path):
            raise OSError(None, "it is a folder")
        if os.path.exists(path) and not os.path.isfile(path):  # /dev/null would be replaced
            raise OSError(None, "it is no file")
        if os.path.exists(path) and not path.lower().endswith((".html", ".htm")):
            raise OSError(None, "it is there already, and its name is not that of a page")
        tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))).close()
    except OSError as error:
        raise run.Stop(f"cannot write {path} ({error.strerror}); choose another --html") from None


def write(path, method, r, args):
    """The page of a run, looked at as `args` of sample.py say. Whole or not at all."""
    text = page.document(contents(method, r, args))
    size = len(text.encode())
    if size > LARGEST:
        raise run.Stop(f"the page would have {size / 1e6:.1f} MB; ask for fewer tasks with --n")
    try:
        run.write(os.path.realpath(path), text)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(os.path.realpath(path) + ".tmp")
        raise run.Stop(f"cannot write {path} ({error.strerror}); choose another --html") from None
    print(f"{path}: {size / 1e3:.0f} kB")


def contents(method, r, args):
    """-> the page as plain data (lib/page.py reads it)"""
    folder = os.path.isdir(args.run)
    state = run.load(checkpoint_of(args.run))
    lines = run.read_log(args.run) if folder else state["log"]
    options, n = state["options"], args.n
    heat = "" if args.temperature is None else f" --temperature {args.temperature:g}"
    if method is worldmodel:
        shown = {"worlds": worlds(r, n)}
    else:
        shown = {"readers": readers(r), "tasks": episodes(r, n)}
    return {"method": options["method"], "options": options, "step": state["step"],
            "comments": {f.name: text for _, f, text in run.described(type(r.cfg))},
            "command": command(options, type(r.cfg)), "split": r.cfg.final_split,
            "drawn": f"{shlex.join(['python', 'sample.py', args.run])} --n {n} --seed {args.seed}"
                     f" --split {args.split}{heat} --html FILE",
            "temperature": r.cfg.temperature, **shown, "charts": charts(lines),
            "table": table(os.path.join(args.run, "result.json") if folder else "")}


def command(options, Config):
    """The command that makes this run: the options that differ from their defaults, and the seed"""
    defaults, said = run.as_json(Config()), []
    for name, value in options.items():
        if name in ("method", "resume", "out", "seed") or value == defaults.get(name):
            continue
        said += [run.flag(name)] if value is True else [run.flag(name), str(value)]
    return shlex.join(["python", "train.py", "--method", options["method"], *said,
                       "--seed", str(options["seed"])])


# ---- chains and games: what was said, and what its readers think of each token ----

def readers(r):
    """Names of the two models that are asked, the second one's surprise shades."""
    if hasattr(r, "team"):
        return ["senior", "junior"]
    return ["student", "teacher"] if hasattr(r, "teacher") else ["after", "before"]


def episodes(r, n):
    """n tasks -> [{"task", "cells": [what was said by whom, before or after training]}]"""
    played = []  # (when, who wrote, task, rows, episode, weights of turns)
    opinions = []  # of both readers
    for when in run.before_and_after(r):
        for writer, *found in plays(r, n):
            played.append((when, writer, *found))
        if readers(r)[0] != "after":
            judges = r.team.sources if hasattr(r, "team") else [r.model, r.teacher]
            new = played[len(opinions):]
            opinions += [[opinion(m, rows, r.cfg, most(r, n)) for m in judges]
                         for _, _, _, rows, _, _ in new]
    if not opinions:  # both readers are the model itself, at two times
        early, late = ([opinion(r.model, rows, r.cfg, most(r, n)) for _, _, _, rows, _, _ in played]
                       for _ in run.before_and_after(r))
        opinions = [[b, a] for a, b in zip(early, late)]
    tasks = {}
    for (when, writer, task, rows, episode, weights), both in zip(played, opinions):
        cell = {"title": f"{when[0].upper()}{when[1:]} training: {writer}", **verdict(episode),
                "parts": parts(r.tok, rows, both, weights)}
        tasks.setdefault(task, []).append(cell)
    return [{"task": task, "cells": cells} for task, cells in tasks.items()]


def writers(r):
    """Who writes -> {name: sampler}"""
    if not hasattr(r, "team"):
        return {"the model alone": lambda: r.solo}
    teams = {f"the team, {label}": lambda how=how: together(r, *how)
             for label, how in handoffs(r.cfg).items()}
    return {"the senior alone": lambda: r.solo, **teams}


def most(r, n):
    """Tokens that a chain may show."""
    chains = 2 * n * (1 if hasattr(r, "teacher") else len(writers(r)))
    return max(20, TOKENS // chains)


def plays(r, n):
    """The model's first n tasks -> (who wrote, task, Rows of the episode, its dict, weights)"""
    if hasattr(r, "teacher"):
        for task in range(n):
            rows, weights, episode = atod.weighed_rows(r, task)
            yield "the student", task, rows, episode, weights
        return
    for name, sampler in writers(r).items():
        where = (r.env, r.tok, r.cfg, r.cfg.final_split)
        _, batches, found = evaluate(sampler(), *where, n, 1, r.cfg.seed)
        several = (batch[batch.episode == e] for batch in batches
                   for e in range(int(batch.episode.max()) + 1))
        for rows, episode in zip(several, found):
            yield name, episode["task"], rows, episode, None


def verdict(episode):
    """How it ended: a word, whether that is good, and what else there is to say."""
    won, notes = succeeded(episode), []
    if episode["truncated"]:
        notes.append("cut off")
    if episode["turns"] > 1:
        notes.append(f"{episode['turns']} turns")
    return {"won": won, "notes": notes}


@torch.no_grad()
def opinion(model, rows, cfg, most):
    """What a model thinks of the first tokens that were sampled -> for each row {place: (log-prob
    of the token there, [(a favourite's id, its probability)])}"""
    found = []
    for tokens, mask in zip(rows.tokens, rows.mask):
        at = mask.nonzero()[:most - sum(map(len, found)), 0]  # [n]
        if not len(at):
            found.append({})
            continue
        with torch.autocast(tokens.device.type, torch.bfloat16, tokens.device.type == "cuda"):
            x = model.hidden(tokens[None, :int(at[-1])])[0, at - 1]  # [n, D]
            logp = (model.head(x).float() / (cfg.temperature or 1.0)).log_softmax(-1)  # [n, V]
        own = logp.gather(1, tokens[at, None])[:, 0].tolist()
        best = logp.topk(FAVOURITES)
        pairs = (list(zip(*both)) for both in zip(best.indices.tolist(),
                                                  best.values.exp().tolist()))
        found.append(dict(zip(at.tolist(), zip(own, pairs))))
    return found


def parts(tok, rows, both, weights):
    """An episode's rows -> [what the world said, what the model said, ...] in order"""
    found, ends = [], {*tok.stop_ids, getattr(tok, "turn_id", None)}
    authors = rows.mask if rows.author is None else rows.author
    for b in range(len(rows.tokens)):
        ids, turns, senior = (x[b].tolist() for x in (rows.tokens, rows.turn_of_token, authors))
        length = int(rows.mask[b].nonzero().max()) + 1 if bool(rows.mask[b].any()) else 0
        for turn, columns in itertools.groupby(range(length), key=turns.__getitem__):
            columns = list(columns)
            if turn < 0:
                text = tok.decode([ids[t] for t in columns if ids[t] not in ends])
                found.append({"heard": shortened(text)})
                continue
            part = {"said": [], "cut": sum(t not in both[0][b] for t in columns)}
            kept = [t for t in columns if t in both[0][b]]
            for text, places in whole(tok, ids, senior, kept):
                read = [[opinions[b][t] for t in places] for opinions in both]
                part["said"].append(token(tok, text, senior[places[0]], read))
            if weights:
                part["weights"] = dict(zip("wdh", (x[turn] for x in weights)))
            found.append(part)
    return found


def shortened(text, longest=LONGEST):
    return text if len(text) <= longest else text[:longest] + " ..."


def whole(tok, ids, senior, columns):
    """Tokens -> [(text, places)]: whole characters, because a token may be a part of one."""
    def kind(t):
        return senior[t], ids[t] in tok.stop_ids
    found = []
    for (_, ended), mine in itertools.groupby(columns, key=kind):
        mine, done, first = list(mine), "", 0
        before = ids[:mine[0]]
        for i in range(len(mine)):
            text = continued(tok, before, [ids[t] for t in mine[:i + 1]])
            if not ended and text.endswith("\ufffd") and i + 1 < len(mine) and i - first < 3:
                continue
            found.append((page.END if ended else text[len(done):], mine[first:i + 1]))
            done, first = text, i + 1
    return found


def token(tok, text, senior, read):
    """text, its author, each reader's log-prob of it and what it would rather have written there"""
    rather = [[(page.END if i in tok.stop_ids else tok.decode([i]), p) for i, p in reads[0][1]]
              for reads in read]
    return {"text": text, "senior": senior, "logp": [sum(x for x, _ in reads) for reads in read],
            "rather": rather}


# ---- a world model: state, prediction, rollout, and what leaks ----

def worlds(r, n):
    """n examples, as they are imagined after training."""
    w = r.w
    examples = worldmodel.held_out(r, r.cfg.final_split, max(n, PARTNERS), 9)
    partner = dict(imagine.partners(examples))
    found = []
    for i, e in enumerate(examples[:n]):
        other = examples[partner[i]] if i in partner else None
        past = e.past[-w.window:]  # window 0: all of it
        found.append({
            "formulation": w.form.name, "has_state": w.form.name != "stateless",
            "history": [(m.action if j else "", m.text) for j, m in enumerate(past)],
            "steps": imagined(w, e),
            "swap": swapped(w, e, other) if other else None})
    return found


def imagined(w, example):
    """Each imagined step: action, states and observation, every fact beside the truth"""
    minds, steps, before = w.form.begin(w, [example.past]), [], example.past[-1]
    for h, moment in enumerate(example.future):
        step, = w.form.imagine(w, minds, [moment.action], h)
        written = [w.tok.decode(getattr(mind, "body", ())) for mind in (*minds, step.mind)]
        minds = [step.mind]
        steps.append({"action": moment.action, "text": step.text, "truth": moment.text,
                      "observation": marked(w, w.language.parse(step.text), moment.stated,
                                            moment.stated),
                      "f1": fact_f1(w.language.parse(step.text), moment.stated),
                      "state": marked(w, step.state, before.facts, (), written[0]),
                      "next": marked(w, step.next_state, moment.facts, moment.needed,
                                     written[1])})
        before = moment
    return steps


def marked(w, facts, true, needed, written=""):
    """Facts -> [(text, "right", "wrong", "missing" or "malformed")]

    true: what holds; needed: what must not be missing; written: what a malformed state says."""
    if facts is None:
        return [(shortened(written, 160), "malformed")]
    said = list(dict.fromkeys(facts))
    return ([(w.state_text([fact]), "right" if fact in true else "wrong") for fact in said]
            + [(w.state_text([fact]), "missing") for fact in sorted(set(needed) - set(said))])


@torch.no_grad()
def swapped(w, example, other):
    """The prediction when history or state become another example's; the action stays."""
    moment, strange = example.future[0], dataclasses.replace(example, past=other.past)

    def seen(name, text):
        return {"name": name, "text": text, "f1": fact_f1(w.language.parse(text), moment.stated),
                "observation": marked(w, w.language.parse(text), moment.stated, moment.stated)}
    if w.form.name == "stateless":
        texts = [w.form.imagine(w, [list(e.past)], [moment.action])[0].text
                 for e in (example, strange)]
        rows, leak = zip(("its own history", "another history"), texts), None
    else:
        own, others = w.form.states(w, [example, other])
        given = {"its own history and its own state": (example, own),
                 "another history, the same state": (strange, own),
                 "its own history, another state": (example, others)}
        # one by one: numbers of a batch may differ in their last bits
        rows = [(name, w.form.from_state(w, [pair])[0]) for name, pair in given.items()]
        leak = imagine.leak(w, example, other, list(getattr(own, "body", own)))
    return {"action": moment.action, "truth": moment.text, "leak": leak,
            "other": other.past[-1].text, "rows": [seen(*row) for row in rows]}


# ---- curves and the final table, of any run ----

CHARTS = (  # title, what the y axis measures, the lines
    ("Reward and success", "mean of the tasks", {
        "reward": "reward, training tasks", "success": "success, training tasks",
        "solo": "success alone, valid tasks", "valid success": "success, valid tasks"}),
    ("Imagined observations", "F1 of facts", {
        "obs H=1": "one step", "obs H=5": "five steps", "obs H=9": "nine steps",
        "state s' H=1": "next state, one step"}),
    ("Notation", "share of the lines", {"private": "private, training chains",
                                        "solo_private": "private, alone, valid tasks"}),
    ("Who writes", "share", {"senior_share": "tokens of the senior", "p": "p of the coin"}),
    ("Annealing", "coefficient", {"kappa": "kappa, of the teacher", "rho": "rho, of the reward"}),
    ("Size of the two signals", "mean |A| of a token", {
        "A_opd": "kappa w Delta, the teacher's", "A_grpo": "rho A, the reward's"}),
    ("Student and teacher", "nats a token", {
        "disagreement": "mean |log-ratio|", "teacher_kl": "KL to the teacher, estimated"}),
    ("Surprise at its own words", "nats a token", {"nll": "-log p of what it wrote"}),
    ("Loss", "loss", {"loss": "loss"}),
)


def charts(lines):
    """metrics.jsonl -> [{"title", "y", "lines": {name: [(update, value)]}}]"""
    found = []
    for title, y, names in CHARTS:
        curves = {label: averaged([(line["step"], line[name]) for line in lines
                                   if is_number(line.get(name))])
                  for name, label in names.items()}
        curves = {label: points for label, points in curves.items() if points}
        if title == "Reward and success":  # where every reward is 0 or 1 they are one line
            reward, won = (curves.get(names[name]) for name in ("reward", "success"))
            if won and reward == won:
                curves.pop(names["success"])
        if curves and not (title == "Loss" and found):  # a policy gradient's says nothing
            found.append({"title": title, "y": y, "lines": curves})
    return found


def is_number(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e30


def averaged(points):
    """No more than POINTS points, each the mean of its neighbours."""
    size = -(-len(points) // POINTS)
    groups = [points[i:i + size] for i in range(0, len(points), size or 1)]
    return [tuple(sum(x) / len(group) for x in zip(*group)) for group in groups]


def table(path):
    """result.json -> {"n", "columns": {title: {metric: cell}}}; None when there is none"""
    try:
        result = page.read_json(path)
        columns = result.get("columns") or {when: result[when] for when in ("before", "after")}
        n = result["n"]
        return {"n": n, "columns": {
            title: {name: run.cell(pair, run.tasks_of(name, n))
                    for name, pair in column.items()} for title, column in columns.items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
