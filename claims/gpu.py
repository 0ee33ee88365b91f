"""One GPU: is the CUDA path right, and how fast is it? Told in stages, the most valuable first.

    bash runs/gpu.sh                          # all stages, eight minutes
    bash runs/gpu.sh --seconds 240 sampling   # these alone, in so many seconds
    bash runs/gpu.sh --rehearse               # the same code on a CPU, at tiny sizes

A card is lent for minutes. So a stage is a process of its own: when it fails or takes too long, the
next one goes on. Whatever it has found so far is in its JSON at any moment. A stage may use what
the ones before it have left over. Where torch.compile does not work, WITHOUT_COMPILE=1 in the
environment makes it do nothing: then CUDA graphs hold the eager step, and the table says so.

This file runs the stages, and holds the two that are processes themselves: the tests (right) and
the main jobs. What is measured is in gpu_measure.py and gpu_variants.py.
"""
import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

# Stage -> the seconds that are meant for it
STAGES = {"right": 120, "main": 120, "sampling": 120, "update": 25, "profile": 25, "variants": 35,
          "authors": 25}
TINY = ("--device cpu --layers 1 --width 32 --warm-steps 2 --sft-rows 4 --steps 2 --prompts 2 "
        "--group 2 --eval-problems 2 --test-problems 2 --test-chains 2 --junior-layers 1 "
        "--junior-width 32 --threads 1")
JOBS = {  # method -> options. A rehearsal runs tandem alone
    "tandem": "",
    # as typed they take minutes of warm starts: here the path is what counts
    "worldmodel": "--compile off --warm-steps 50 --steps 3 --eval-problems 8 --test-problems 16",
    "atod": "--compile off --warm-steps 50 --steps 3 --student-skill 0.05 --teacher-skill 0.05 "
            "--teacher-target 0 --student-habits 5 --eval-problems 8 --test-problems 16"}


# ---- what a stage has found ----

class Found:
    """A stage's JSON, rewritten with everything that it finds."""

    def __init__(self, stage, out, deadline=float("inf")):
        self.path, self.deadline = os.path.join(out, f"{stage}.json"), deadline
        self.began = time.time()
        self.content = {"stage": stage, "ended": "cut", "seconds": 0.0, "found": []}
        if os.path.exists(self.path):  # of the stage's own process
            with open(self.path, encoding="utf-8") as file:
                self.content = json.load(file)

    def left(self):
        """Seconds."""
        return self.deadline - time.time()

    def add(self, what, **values):
        self.content["found"].append({"what": what, **values})
        self.write()

    def attempt(self, what, work, seconds=0):
        """Add what work() returns, a dict, or why there is none. seconds: it needs at least."""
        if self.left() < seconds:
            return self.add(what, skipped=f"{self.left():.0f} s were left")
        began = time.time()
        try:
            values = work()
        except Exception as error:  # the next one may work
            traceback.print_exc()
            values = {"error": f"{type(error).__name__}: {str(error)[:600]}"}
        self.add(what, **values, took_s=round(time.time() - began, 1))
        print(line_of(self.content["found"][-1]), flush=True)

    def write(self, **more):
        self.content.update(more)
        with open(self.path + ".tmp", "w", encoding="utf-8") as file:
            json.dump(self.content, file, indent=1)
        os.replace(self.path + ".tmp", self.path)


def line_of(result):
    """{"what": name, "tokens_s": 12.3, ...} -> a line"""
    def short(value):
        if isinstance(value, float):
            return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        if isinstance(value, list):
            return f"[{len(value)}]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name} {short(x)}" for name, x in value.items()) + "}"
        return str(value).split("\n")[0][:120]
    values = [f"{name} {short(x)}" for name, x in result.items() if name != "what"]
    return f"  {result['what']:40} " + ", ".join(values)


# ---- processes ----

def call(command, log, seconds, **environment):
    """Run a command of this project, its output into a file -> its exit code; None: too long."""
    command = [sys.executable, *command]
    log.write(f"\n$ {' '.join(command)}\n")
    log.flush()
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1", **environment})
    try:
        return process.wait(max(1, seconds))
    except subprocess.TimeoutExpired:
        return None
    finally:  # Triton's compilers too
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def end_of(path, lines=12):
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join(file.readlines()[-lines:])


# ---- right: the tests that need a GPU ----

def right(found, log, work, rehearse):
    report, printed = os.path.join(work, "tests.xml"), os.path.join(work, "tests.txt")
    command = ["-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short",
               "--durations=0", f"--junitxml={report}", "tests/test_gpu.py"]
    with open(printed, "w", encoding="utf-8") as file:
        code = call(command, file, found.left(), **({"REHEARSE": "1"} if rehearse else {}))
    with open(printed, encoding="utf-8", errors="replace") as file:
        text = file.read()
    log.write(text)
    if code is None:  # no report: what it printed tells how far it came
        for name, result in finished_tests(text):
            found.add(name, **({"passed": True} if result == "PASSED" else {"error": result}))
        raise RuntimeError("cut: the tests took too long")
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [x.get("message", "")[:600] for x in case if x.tag in ("failure", "error")]
        result = {"error": wrong[0]} if wrong else {"passed": not case.findall("skipped")}
        found.add(case.get("name"), **result, took_s=float(case.get("time")))
    if code:
        raise RuntimeError(f"pytest ended with code {code}")


def finished_tests(text):
    """What pytest -v printed -> [(test, "PASSED" or "FAILED" or ...)]"""
    return re.findall(r"^tests/\S+::(\S+) ([A-Z]+)", text, re.MULTILINE)


# ---- main: what a user types ----

def main_jobs(found, log, work, rehearse):
    for method, options in list(JOBS.items())[:1 if rehearse else None]:
        if not rehearse and found.left() < 15:
            found.add(method, skipped=f"{found.left():.0f} s were left")
            continue
        out, began = os.path.join(work, method), time.time()
        typed = TINY if rehearse else options
        command = ["train.py", "--method", method, *typed.split(), "--out", out,
                   "--cache", os.path.join(work, "warm")]
        command += ["--compile", "off"] if os.environ.get("WITHOUT_COMPILE") else []
        # the first is the aim of this stage, and yet the others get some of its time
        share = 0.85 if method == "tandem" else 1.0
        code = call(command, log, share * found.left())
        result = {"options": typed, "to_table_s": round(time.time() - began, 1)}
        if code != 0:
            why = "it took too long" if code is None else f"it ended with code {code}"
            result["error"] = f"{why}\n{end_of(log.name)}"
        found.add(method, **result, **told(out))


def told(out):
    """What a run's folder tells: where the time went, how fast it sampled, mismatch, the table."""
    path = os.path.join(out, "metrics.jsonl")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    result = {"updates": len(lines)}
    for name in ("time_rollout", "time_scoring", "time_update"):
        result[name] = round(sum(line.get(name, 0.0) for line in lines), 2)
    for name in ("tokens_per_s", "mismatch_kl", "mismatch_max"):
        result[name] = max((line.get(name, 0.0) for line in lines), default=None)
    path = os.path.join(out, "result.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            result["result"] = json.load(file)
    return result


# ---- all stages ----

COMPILES = """
import torch
from claims.speed import captured
x = torch.ones(8, device={device!r})
double = torch.compile(lambda: x.mul_(2).sum(), backend={backend!r})
captured(double)() if {device!r} == "cuda" else double()
"""


def check_compiling(log, rehearse):
    """Where torch.compile fails, what is below runs without it -> whether it works."""
    device, backend = ("cpu", "eager") if rehearse else ("cuda", "inductor")
    code = call(["-c", COMPILES.format(device=device, backend=backend)], log, 90)
    if code in (0, None):  # None: it was slow, as a first start may be
        return True
    os.environ["WITHOUT_COMPILE"] = "1"
    return False


def run_stage(stage, out, log, deadline, rehearse):
    """-> what its JSON holds. Whatever happens, the next stage goes on."""
    deadline += 600 * rehearse  # times mean nothing there
    found, began = Found(stage, out, deadline), time.time()
    found.write()
    ended = "well"
    try:
        if stage in ("right", "main"):
            work = {"right": right, "main": main_jobs}[stage]
            with tempfile.TemporaryDirectory() as folder:
                work(found, log, folder, rehearse)
        else:
            command = ["-m", "claims.gpu_measure", stage, "--out", out, "--until", str(deadline)]
            code = call(command + ["--rehearse"] * rehearse, log, found.left())
            if code != 0:
                raise RuntimeError("cut: its time was over" if code is None else
                                   f"it ended with code {code}\n{end_of(log.name)}")
    except Exception as error:
        ended = str(error)
    found = Found(stage, out)  # its process has written too
    failed = sum("error" in x for x in found.content["found"])
    if ended == "well" and failed:
        ended = f"{failed} of {len(found.content['found'])} failed"
    found.write(ended=ended, seconds=round(time.time() - began, 1))
    return found.content


def line_of_stage(x):
    ended = x["ended"].split("\n")[0]
    return f"{x['stage']:10}{x['seconds']:9.1f}{len(x['found']):9}  {ended}"


def table(contents, compiles):
    lines = [] if compiles else ["without torch.compile, which fails here (see log.txt)", ""]
    lines += [f"{'stage':10}{'seconds':>9}{'results':>9}  ended"]
    lines += map(line_of_stage, contents)
    for x in contents:
        lines += ["", f"{x['stage']}:", *map(line_of, x["found"])]
    return "\n".join(lines)


def main(argv=None):
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("stages", nargs="*", help=f"of {' '.join(STAGES)} [all, in this order]")
    parser.add_argument("--seconds", type=float, default=470, help="for all of them together [470]")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at tiny sizes")
    args = parser.parse_args(argv)
    if set(args.stages) - STAGES.keys():
        parser.error(f"stages are {' '.join(STAGES)}")
    stages = args.stages or list(STAGES)
    out = os.path.abspath(os.environ.get("OUT") or "out/gpu")
    os.makedirs(out, exist_ok=True)
    for stage in stages:  # what an earlier run found is not of this one
        if os.path.exists(path := os.path.join(out, f"{stage}.json")):
            os.remove(path)

    whole = sum(STAGES[stage] for stage in stages)
    meant = itertools.accumulate(STAGES[stage] * args.seconds / whole for stage in stages)
    contents, jobs = [], 2 if args.rehearse else 1  # a measurement is alone on its machine
    with (open(os.path.join(out, "log.txt"), "a", encoding="utf-8") as log,
          ThreadPoolExecutor(jobs) as pool):
        compiles, began = check_compiling(log, args.rehearse), time.time()
        work = [pool.submit(run_stage, stage, out, log, began + seconds, args.rehearse)
                for stage, seconds in zip(stages, meant)]
        for stage in work:
            contents.append(stage.result())
            print(line_of_stage(contents[-1]), file=sys.stderr, flush=True)
        text = table(contents, compiles)
        log.write(f"\n{text}\n")
    print(text)
    return 0 if compiles and all(x["ended"] == "well" for x in contents) else 1


if __name__ == "__main__":
    sys.exit(main())
