"""Options: every field of a Config dataclass is one, and the comment behind it is its --help.

Choices stand in the field's type as a Literal, ranges as Count, Rate, Share, ...; both are enforced
here, in one place, for what you type and for what a config.json holds.
"""
import argparse
import dataclasses
import inspect
import operator
import re
import sys
import typing
from dataclasses import dataclass
from typing import Annotated, Literal


class Stop(Exception):
    """Ends the program: one line on stderr, exit code 2."""

    code = 2


RULES = {"least": ("at least", operator.ge), "most": ("at most", operator.le),
         "above": ("above", operator.gt),
         "multiple": ("a multiple of", lambda value, bound: value % bound == 0)}


def in_range(kind, **rule):
    """An option's type: int or float with least, most, above or multiple (see check_options)."""
    return Annotated[kind, rule]


# Upper bounds are far above what anybody means: beyond them numbers overflow inside of libraries.
Count = in_range(int, least=1, most=10**9)
CountOr0 = in_range(int, least=0, most=10**9)  # 0: somebody else's default
Several = in_range(int, least=2, most=10**9)
Layers = in_range(int, least=1, most=1024)
Width = in_range(int, least=32, most=2**17, multiple=32)
Rate = in_range(float, least=0, most=10**6)
Positive = in_range(float, above=0, most=10**30)
Share = in_range(float, least=0, most=1)


@dataclass
class Config:
    """Every run"""
    env: str = "arithmetic"  # which world: the name of a file or a package in envs/
    data: str = ""  # path of the world's data, where it needs some
    text: str = ""  # style of the house's text: terse or plain; empty: terse
    steps: Count = 200  # updates
    seed: in_range(int, least=0, most=10**9 - 1) = 0  # of the warm start, tasks and random draws
    out: str = ""  # the run's folder; empty: out/<method>-<env>-<seed>
    resume: bool = False  # go on from the last checkpoint in --out
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where the models run
    threads: in_range(int, least=0, most=256) = 0  # CPU threads; 0: one a core, at most 4
    compile: Literal["auto", "on", "off"] = "auto"  # compile the decode step; auto: for a long run
    save_every: Count = 20  # updates between checkpoints
    eval_every: Count = 25  # updates between evaluations on valid tasks
    eval_problems: Count = 128  # valid tasks of such an evaluation
    final_split: Literal["test", "valid"] = "test"  # tasks of the final table; valid while you tune
    test_problems: CountOr0 = 0  # how many tasks the final table takes; 0: the world's own default


def described(cls):
    """-> [(class that declares the option first, field, its comment)], in order of declaration."""
    found = {}
    for owner in reversed(cls.__mro__[:-1]):
        source = inspect.getsource(owner)
        for name in inspect.get_annotations(owner):
            # a new default may leave the comment out
            comment = re.search(rf"^    {name}: .*?\s# (.*)$", source, re.M)
            first, text = found.get(name, (owner, ""))
            found[name] = (first, comment.group(1) if comment else text)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    return [(owner, fields[name], text) for name, (owner, text) in found.items()]


def flag(name):
    return "--" + name.replace("_", "-")


def parser_for(prog, **how):
    """An argparse parser whose errors are Stops."""
    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False, usage="%(prog)s [options]",
                                     formatter_class=argparse.RawDescriptionHelpFormatter, **how)

    def error(message):
        raise Stop(f"{message}; see python {prog} --help")
    parser.error = error
    return parser


def typed(argv):
    """The options that decide which others there are: method, env, out, resume, help."""
    parser = parser_for("train.py", add_help=False)
    for name in ("method", "env", "out"):
        parser.add_argument(flag(name), default="")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    return parser.parse_known_args(argv)[0]


def parse(argv, cls, about, hidden=()):
    """Read a Config class's options -> (cfg, {typed option: value}). hidden: left out of --help."""
    parser = parser_for(f"train.py --method {cls.method}", description=about)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    groups = {}
    for owner, f, comment in described(cls):
        if owner not in groups:
            groups[owner] = parser.add_argument_group(owner.__doc__)
        text = comment.replace("%", "%%")
        kind, _, choices = kind_of(f)
        if choices:
            text += f" ({', '.join(choices)})"
        if kind is not bool and f.default != "":
            text += f" [{f.default}]"
        metavar = "NAME" if choices else {int: "N", float: "X"}.get(kind, "TEXT")
        how = {"type": kind, "metavar": metavar}
        if kind is bool:
            how = {"action": "store_true"}
        shown = argparse.SUPPRESS if f.name in hidden else text
        groups[owner].add_argument(flag(f.name), default=argparse.SUPPRESS, help=shown, **how)
    given = vars(parser.parse_args(argv))
    given.pop("method", None)
    cfg = cls(**given)
    check_options(cfg)
    if not cfg.resume:
        check_idle(cfg, given)
    return cfg, given


def kind_of(f):
    """A field's type -> int, float, bool or str; its range; its choices"""
    args = typing.get_args(f.type)
    if typing.get_origin(f.type) is Literal:
        return str, {}, args
    kind, rule = args or (f.type, {})
    return kind, rule, ()


def check_options(cfg):
    """Stop when an option has the wrong type, is not among its choices, or is out of range."""
    for f in dataclasses.fields(cfg):
        (kind, rule, choices), value = kind_of(f), getattr(cfg, f.name)
        if choices and value not in choices:
            raise Stop(f"unknown {f.name.replace('_', '-')} {value!r}; one of: {' '.join(choices)}")
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise Stop(f"{flag(f.name)} is {value!r}, which is no {kind.__name__}")
        if kind is float and not abs(value) <= sys.float_info.max:
            raise Stop(f"{flag(f.name)} is a finite number, not {value}")
        for name, bound in rule.items():
            words, fine = RULES[name]
            if not fine(value, bound):
                raise Stop(f"{flag(f.name)} is {words} {bound:,}, not {value}")


# a model -> the options that say how it is made
MADE = {"senior": ("skill", "target"), "junior": ("junior_skill", "junior_target"),
        "teacher": ("teacher_skill", "teacher_target"),
        "student": ("student_skill", "student_habits", "student_player")}


def check_idle(cfg, given):
    """Stop when you typed one of these options, and it would do nothing."""
    for role, names in MADE.items():
        path = getattr(cfg, role, "")
        idle = [name for name in names if name in given and cfg.method != "sft"]
        if idle and path not in ("", "auto"):
            raise Stop(f"{flag(idle[0])} says how a {role} is made, and you gave one: leave "
                           f"out {flag(idle[0])}, or {flag(role)} {path}")
    if "p_from" in given and cfg.p_end < 0:
        raise Stop("--p-from says when p begins to move to --p-end; give --p-end too")
    if "terms" in given and cfg.formulation == "stateless":
        raise Stop("--terms is the reward of a state, and stateless writes none: leave it out")


def as_json(cfg):
    """The options as plain types, for config.json and checkpoints."""
    return {"method": cfg.method, **dataclasses.asdict(cfg)}


def from_json(cls, options):
    """Options that as_json() wrote -> a Config. Stop when they are not this version's."""
    options = {name: value for name, value in options.items() if name != "method"}
    names = {f.name for f in dataclasses.fields(cls)}
    strange = sorted(set(options) ^ names)
    if strange:
        raise Stop("these options are of another method, or of another version of this project: "
                   f"{' '.join(strange[:5])}; put config.json back, or start a new run")
    cfg = cls(**options)
    check_options(cfg)
    return cfg
