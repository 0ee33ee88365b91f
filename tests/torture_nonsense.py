"""What is no number, for tests/torture.py: NaN, infinities and huge values, put inside a run and
typed as options."""
import json
import math
import resource

import grpo
import rollout
import run
import sft
import train
from conftest import MOVING
from torture_runs import Child, options


def poisoned(where, value, step, rng):
    """Called in a child: one number inside becomes `value` at an update."""
    count = [0]

    def due():
        count[0] += 1
        return count[0] == step

    def put(x):
        if x.is_floating_point() and x.numel():
            x.view(-1)[rng.randrange(x.numel())] = value

    if where == "rewards":
        for module in (grpo, train.tandem, train.atod):
            def rewards(*args, inner=module.episode_rewards):
                found, valid = inner(*args)
                if due():
                    put(found)
                return found, valid
            module.episode_rewards = rewards
    elif where == "log-probs":
        stack = rollout.stack

        def stacked(*args):
            rows = stack(*args)
            if due():
                put(rows.behaviour_logp)
            return rows
        rollout.stack = stacked
    else:
        for module in (grpo, sft):
            def applied(model, *args, inner=module.apply_gradients):
                every = list(model.parameters())
                if where == "gradients" and due():
                    put(rng.choice([p.grad for p in every if p.grad is not None]))
                done = inner(model, *args)
                if where == "weights" and due():
                    put(rng.choice(every).data)
                return done
            module.apply_gradients = applied


def finite(path):
    """Does a checkpoint hold numbers only?"""
    try:
        run.check_finite(run.load(str(path))["model"], "")
        return True
    except run.Stop:
        return False


def nonsense_left(folder):
    """What is not a number and was kept; "" when nothing was."""
    for path in [*folder.rglob("*.pt"), *folder.rglob("*.previous")]:
        if not finite(path):
            return f"{path.name} is not finite"

    def no_json(name):
        raise ValueError(name)
    for path in folder.rglob("metrics.jsonl"):
        for line in path.read_text().splitlines():
            try:
                json.loads(line, parse_constant=no_json)
            except ValueError:
                return f"metrics.jsonl: {line[:100]}"
    return ""


def nonsense(check):
    """NaN, infinities and huge numbers in weights, rewards, gradients and log-probs."""
    places = "weights", "gradients", "rewards", "log-probs"
    for number, rng, folder in check.each():
        method = rng.choice(("grpo", "tandem", "atod", "worldmodel"))
        where = places[number % 4]
        value = rng.choice((math.nan, math.inf, -math.inf, 3e38))
        args = options(method, "--warm-steps", "3")
        step = rng.randrange(1, 12)
        child = Child(folder, args, lambda: poisoned(where, value, step, rng))
        child.wait()
        wrong = "" if child.code == 0 or child.refused() else child.end()
        wrong = wrong or nonsense_left(folder)
        check.case(wrong and f"case {number}, {method}, {value} in {where} at {step}: {wrong}")


def nonsense_options(check):
    """Options that nobody means: they are refused in one line, or the run ends, or it goes on."""
    wild = {float: ("nan", "inf", "-inf", "1e39", "-1e39", "1e308", "1e-320", "-0.0", "1e999"),
            int: ("0", "-1", "100000", "1000000000000", str(10**30), "2.5", "1e3", "٣"),
            str: ("\0x", "a" * 5000, "../../x", "\udcff", "", "{}", "/proc/1/mem")}
    for number, rng, folder in check.each():
        method = rng.choice(list(MOVING))
        fields = [(owner, f) for owner, f, _ in run.described(train.METHODS[method][1])]
        _, field = rng.choice(fields)
        kind = run.kind_of(field)[0]
        if kind is bool or field.name == "out":
            check.case()
            continue
        value = rng.choice(wild[kind])
        args = options(method) + [f"{run.flag(field.name)}={value}"]

        def little_memory():
            resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
        child = Child(folder, args, little_memory)
        child.wait(12)
        fine = child.code in (0, "hangs") or child.refused()
        wrong = ("" if fine else child.end()) or nonsense_left(folder)
        check.case(wrong and f"case {number}, {method} {args[-1][:60]!r}: {wrong}")
