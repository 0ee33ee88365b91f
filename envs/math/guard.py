"""The process in which the library math-verify compares two formulas; library.py starts it.

The guard imports the library once. For each question it forks a child, which has a second of
processor time and little memory. So a formula that never ends costs the child, and the next
question finds a fresh one at once. The child's exit code is its verdict.

    trainer --line of JSON--> guard --fork--> child
    trainer <--right, wrong-- guard <--exit code--'

The library guards itself with an alarm signal, which works in the main thread of a process only.
Here it needs no such guard.
"""
import contextlib
import json
import os
import resource
import select
import signal
import sys
import time

SECONDS = 1  # of processor time for a question
WALL = 2.0  # seconds by the clock, for a machine that is busy with other things
MEMORY = 2 << 30  # bytes
RIGHT = 42  # no accident ends with this code
CLOSE = 1e-10  # relative difference of two constants that are equal


def main():
    parent = int(sys.argv[1])
    answers = os.dup(1)
    os.dup2(2, 1)  # what the library prints is no answer
    import math_verify  # noqa: F401: the children have it
    os.write(answers, b"ready\n")
    waiting = b""
    while os.getppid() == parent:  # a trainer that was killed is noticed
        if not select.select([0], [], [], 1.0)[0]:
            continue
        more = os.read(0, 1 << 16)
        if not more:
            return
        *lines, waiting = (waiting + more).split(b"\n")
        for line in lines:
            os.write(answers, b"right\n" if verdict(json.loads(line)) else b"wrong\n")


def verdict(questions):
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            limit()
            code = RIGHT if all(matched(*question) for question in questions) else 1
        os._exit(code)
    until = time.monotonic() + WALL
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == RIGHT
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def limit():
    """The child: nothing to say, little to use."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    for what, much in (("CPU", SECONDS), ("AS", MEMORY), ("FSIZE", 0), ("CORE", 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (much, much))


def matched(golds, saids):
    """Does each of the references find an equal formula of its own?"""
    golds, left = [parsed(text) for text in golds], [parsed(text) for text in saids]
    for gold in golds:
        same = [said for said in left if equal(gold, said)]
        if not same:
            return False
        left.remove(same[0])
    return not left


def parsed(text):
    """LaTeX -> [a formula of sympy]; [] when it is none. The text is normal already: units are not
    looked for again, so 5m is no 5."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    as_it_is = NormalizationConfig(basic_latex=True, units=False, malformed_operators=False,
                                   nits=False, boxed="none", equations=False)
    how = LatexExtractionConfig(boxed_match_priority=-1, normalization_config=as_it_is)
    return parse(f"${text}$", [how], fallback_mode="no_fallback", parsing_timeout=None)


def equal(gold, said):
    from math_verify import verify
    if not gold or not said:
        return False
    return verify(gold, said, float_rounding=10, timeout_seconds=None) and close(gold[0], said[0])


def close(gold, said):
    """The library takes a very small number for 0. So two formulas must be close at a point too,
    by the relative difference."""
    from sympy import Dummy, Expr, Rational
    from sympy.core.function import AppliedUndef
    if not isinstance(gold, Expr) or not isinstance(said, Expr):
        return True  # an equation
    unknown = {call: Dummy() for call in gold.atoms(AppliedUndef) | said.atoms(AppliedUndef)}
    gold, said = gold.xreplace(unknown), said.xreplace(unknown)  # f(0) is a number like any other
    symbols = sorted(gold.free_symbols | said.free_symbols, key=str)
    point = {symbol: Rational(17 + 4 * i, 13) for i, symbol in enumerate(symbols)}
    a, b = (complex(formula.subs(point).doit().evalf(30)) for formula in (gold, said))
    return abs(a - b) <= CLOSE * max(abs(a), abs(b))


if __name__ == "__main__":
    main()
