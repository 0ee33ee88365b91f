"""What is done to worlds and loaders, for tests/torture.py: replies that no model should give,
files that nobody should have."""
import contextlib
import io
import json
import math
import os
import random
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import envs
import run
import sft
import tokenizer
import weights
from contract import DIGITS, NASTY
from envs import record
from envs.alfworld import files as alfworld_files
from envs.webshop import files as webshop_files
from envs.webshop import made as webshop_made
from lib.start import load_model
from model import GPT, small_config
from searchqa_made import hotpot
from test_hostile_files import NESTED, READERS, WRONG, places, put, without


# ---- replies ----

def open_world(name):
    """-> an environment that is played here, in this process."""
    options = {}
    if name == "gsm8k":
        lines = [json.dumps({"question": f"{n} and {n * n}?", "answer": f"So <<{n}+{n * n}="
                             f"{n + n * n}>>{n + n * n}\n#### {n + n * n}"}) for n in range(300)]
        Path("problems.jsonl").write_text("\n".join(lines))
        options = {"data": "problems.jsonl"}
    elif name == "searchqa":
        Path("questions.json").write_text(json.dumps(hotpot(200)))
        options = {"data": "questions.json"}
    elif name == "webshop":
        webshop_made.write("shop", 150)
        options = {"data": "shop", "level": 1}
    elif name == "textworld":
        os.environ["TEXTWORLD_GAMES"] = os.path.abspath("games")
        options = {"games": 5}
    elif name == "alfworld":
        if not (find_spec("fast_downward") and find_spec("alfworld")):
            raise ValueError("alfworld is not installed")
        from envs.alfworld import made
        from envs.alfworld.games import Game
        os.environ["ALFWORLD_CACHE"] = os.path.abspath("translated")
        folder = Path("rooms").absolute()
        folder.mkdir()
        made.write_games(folder, plan=lambda path: Game(path).plan(()), train=6, valid_seen=3,
                         valid_unseen=3)
        options = {"data": str(folder)}
    return envs.make(name, **options)


def mangled(text, rng):
    """A good reply, and what may become of it."""
    words = text.split(" ")
    kind = rng.randrange(9)
    if kind == 0:
        rng.shuffle(words)
        return " ".join(words)
    if kind == 1:
        return text[:rng.randrange(len(text) + 1)]
    if kind == 2:
        place = rng.randrange(len(text) + 1)
        return text[:place] + chr(rng.randrange(0x110000)) + text[place:]
    if kind == 3:
        return text + rng.choice("\n \r\0\x1b\u2028\ud800") + rng.choice(NASTY)
    if kind == 4:
        return " ".join([text] * rng.randrange(2, 50))
    if kind == 5:
        return text.swapcase()
    if kind == 6:
        return "".join(rng.choice(text + DIGITS) for _ in text)
    if kind == 7:
        return rng.choice(NASTY) + text
    return text


def reply(env, known, rng):
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(NASTY)
    if kind == 1:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(60)))
    if kind == 2 and env.actions():
        return rng.choice(env.actions())
    if kind == 3:
        return " ".join(mangled(rng.choice(known), rng) for _ in range(3))
    return mangled(rng.choice(known), rng)


def wrong_step(step, total):
    """What is wrong with an answer; "" when nothing is."""
    if not isinstance(step.observation, str) or type(step.done) is not bool:
        return f"its types: {step}"
    if not math.isfinite(step.reward) or not -1e-9 <= total <= 1 + 1e-9:
        return f"a return of {total}"
    if type(step.info.get("success", False)) is not bool:
        return f"success is {step.info['success']!r}"
    step.observation.encode()
    return ""


def replies(check):
    """So many fuzzed replies: no error, a return within [0, 1], an end within max_turns, the same
    answer twice, and in no more than ten seconds."""
    name = check.name.split()[1]
    try:
        env = open_world(name)
    except (ValueError, ImportError) as error:
        check.skipped = f"skipped: {error}"[:80]
        return
    skill = next(iter(env.targets))
    game = check.first
    while check.tried < check.cases:
        rng, game = random.Random(f"{check.name} {game}"), game + 1
        split = rng.choice(envs.SPLITS)
        task = rng.randrange(env.tasks(split) or 10**6)
        try:
            env.reset(task, split)
            known = env.demo(random.Random(0), skill) or ["look"]
            said, total, done = [], 0.0, False
            while not done:
                said.append(reply(env, known, rng))
                began = time.monotonic()
                step = env.step(said[-1])
                total, done = total + step.reward, step.done
                wrong = wrong_step(step, total)
                if time.monotonic() - began > env.time_limit:  # the promise; machines are busy
                    wrong = wrong or f"an answer took {time.monotonic() - began:.0f} s"
                if not done and len(said) >= env.max_turns:
                    wrong = wrong or "no end"
                    done = True
                check.case(wrong and f"game {game - 1}, {split} {task}, {said[-1][:80]!r}: {wrong}")
            if rng.random() < 0.1:
                env.reset(task, split)
                again = sum(env.step(text).reward for text in said)
                if abs(again - total) > 1e-9:
                    check.case(f"game {game - 1}: a return of {total}, then of {again}")
        except Exception as error:
            check.case(f"game {game - 1}, {split} {task}, {said[-1][:80]!r}: "
                       f"{type(error).__name__}: {error}")


# ---- files ----

def bytes_changed(content, rng):
    """Bytes of a good file -> bytes of a bad one."""
    place = rng.randrange(len(content) + 1)
    some = rng.choice((b"\0", b"\xff", b"\xed\xa0\x80", b"[", b"{", b'"', b"\r", b"9" * 400, b"-",
                       b"NaN", b"1e999", b"null", rng.randbytes(8)))
    kind = rng.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + some + content[place:]
    if kind == 2:
        return content[:place] + some + content[place + len(some):]
    if kind == 3:
        return content[:place] + content[place + rng.randrange(40):]
    bit = 1 << rng.randrange(8)
    return content[:place] + bytes(x ^ bit for x in content[place:place + 1]) + content[place + 1:]


def record_changed(value, rng):
    """A good record -> one with a field that is missing, or of another type."""
    where = [path for path in places(value) if path]
    path = rng.choice(where)
    if rng.random() < 0.2:
        return without(value, path)
    wild = [*WRONG, 10**400, 1e308, -1, 2**63, math.nan, math.inf, "x" * 10_000, "\ud800", ["\0"],
            [[[[[]]]]], {"": {"": {}}}, True]
    return put(value, path, rng.choice(wild))


def tiny_model():
    torch.manual_seed(0)
    return GPT(small_config(64, 32, 1, 32))


def jsonl_loader(name):
    def prepare(folder, rng):
        value, read = READERS[name]
        if rng.random() < 0.6:
            return lambda: read(folder, record_changed(value, rng))
        read(folder, value)  # writes the files
        path = rng.choice(sorted(folder.glob("*.json*")))
        content = bytes_changed(path.read_bytes(), rng)

        def go():
            path.write_bytes(content)
            if path.name == "some.jsonl":
                return whole_reader(name)(str(path))
            return webshop_files.read(str(folder))
        return go
    return prepare


def whole_reader(name):
    """What READERS[name] calls when its file is there."""
    read = READERS[name][1]
    return read.__closure__[0].cell_contents


def public_config(folder, rng):
    config = weights.written_config(tiny_model().cfg)
    text = json.dumps(record_changed(config, rng), default=str).encode()
    if rng.random() < 0.4:
        text = bytes_changed(json.dumps(config).encode(), rng)
    (folder / "config.json").write_bytes(rng.choice((text, text, text, NESTED[0].encode())))
    return lambda: weights.read_config(str(folder))


def public_weights(folder, rng):
    weights.save_pretrained(tiny_model(), str(folder))
    path = folder / "model.safetensors"
    content = path.read_bytes()
    head = rng.randrange(200, 1200)  # most of the damage to the names and shapes
    changed = bytes_changed(content[:head], rng) + content[head:]
    path.write_bytes(rng.choice((changed, bytes_changed(content, rng))))
    return lambda: GPT.from_pretrained(str(folder))


def checkpoint(folder, rng):
    model, tok = tiny_model(), tokenizer.of_world(envs.make("guess"), [])
    state = {"model": model.state_dict(), "model_config": dict(vars(model.cfg)),
             "tokenizer": tok.state(), "step": 3}
    if rng.random() < 0.5:
        state["model"] = {name: x.tolist() for name, x in state["model"].items()}
        state = record_changed({**state, "model": {}}, rng)
    torch.save(state, folder / "some.pt")
    if rng.random() < 0.4:
        path = folder / "some.pt"
        path.write_bytes(bytes_changed(path.read_bytes(), rng))
    return lambda: load_model(str(folder / "some.pt"))


def run_config(folder, rng):
    config = run.as_json(sft.Config())
    text = json.dumps(record_changed(config, rng))
    if rng.random() < 0.4:
        text = bytes_changed(json.dumps(config).encode(), rng)
    text = text if isinstance(text, bytes) else text.encode(errors="replace")
    (folder / "config.json").write_bytes(text)

    def go():
        stored = run.read_config(str(folder))
        run.from_json(sft.Config, stored)
    return go


def recorded_games(folder, rng):
    moments = [record.Moment("look", "a room", frozenset({("at", "a")}), frozenset(), frozenset())]
    line = record.line(("train", 3, "expert"), moments)
    path = folder / "games.jsonl"
    bad = bytes_changed(line.encode(), rng)
    if rng.random() < 0.5:
        bad = json.dumps(record_changed(json.loads(line), rng)).encode() + b"\n"
    last = record.line(("test", 5, "expert"), moments).encode()
    path.write_bytes(line.encode() + bad + b"\n" + last)

    def go():
        found = record.read(str(path))
        if ("test", 5, "expert") not in found:
            raise RuntimeError("a line behind the bad one is lost")
    return go


def games_of_alfworld(folder, rng):
    good = {"pddl_domain": "(define)", "pddl_problem": "p",
            "grammar": 'x;"Your task is to: put a mug."', "walkthrough": ["look"]}
    text = json.dumps(record_changed(good, rng)).encode()
    if rng.random() < 0.4:
        text = bytes_changed(json.dumps(good).encode(), rng)
    place = folder / "json_2.1.1/train/pick_and_place_simple-Mug-None-Desk-1/trial"
    place.mkdir(parents=True)
    (place / "game.tw-pddl").write_bytes(text)

    def go():
        from envs.alfworld import ALFWorld
        tasks = alfworld_files.read_folder(folder, "train")
        if len(text) % 2:
            tasks = [alfworld_files.Task(str(place / "game.tw-pddl"), "task/trial", "clean")]
        ALFWorld({"train": tasks}).reset(0, "train")
    return go


LOADERS = {**{name: jsonl_loader(name) for name in READERS},
           "public config": public_config, "public weights": public_weights,
           "checkpoint": checkpoint, "run's config": run_config,
           "recorded games": recorded_games, "alfworld": games_of_alfworld}


def files(check):
    """Files of one loader: read, or refused in one line."""
    if check.name == "files public weights" and not find_spec("safetensors"):
        check.skipped = "skipped: pip install safetensors"
        return
    prepare = LOADERS[check.name.split(" ", 1)[1]]
    for number, rng, folder in check.each():
        go = prepare(folder, rng)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                go()
            check.case()
        except (ValueError, run.Stop) as error:
            own = type(error) in (ValueError, run.Stop)
            fine = own and "\n" not in str(error)
            check.case("" if fine else f"case {number}: {type(error).__name__}: {error}"[:300])
        except BaseException as error:
            if isinstance(error, pytest.skip.Exception):
                check.skipped = str(error)
                return
            check.case(f"case {number}: {type(error).__name__}: {error}"[:300])
