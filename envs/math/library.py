"""Asks the library math-verify, in a process of its own (guard.py).

The process is started at the first question; its import takes some seconds, once. All environments
of a process share it. It ends with this process. A fork of this process starts its own.
"""
import atexit
import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
START = 60.0  # seconds in which the guard must be ready
ANSWER = 5.0  # seconds in which it must answer; it gives up a question itself after two
MISSING = "math: math-verify is not installed, so an answer that plain rules cannot decide earns 0"


def available():
    return importlib.util.find_spec("math_verify") is not None


@functools.cache
def say_once(text):
    print(text, file=sys.stderr)


class Guard:
    """The process. An error when it does not answer."""

    def __init__(self):
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(GUARD), str(os.getpid())], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, "PYTHONPATH": paths})
        try:
            self.hear(START)
        except BaseException:
            self.kill()
            raise

    def ask(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()
        return self.hear(ANSWER) == b"right\n"

    def hear(self, seconds):
        pipe = self.process.stdout.fileno()
        heard, until = b"", time.monotonic() + seconds
        while not heard.endswith(b"\n"):
            if not wait([pipe], max(0, until - time.monotonic())):
                raise TimeoutError("no answer")
            more = os.read(pipe, 64)
            if not more:
                raise EOFError("it ended")
            heard += more
        return heard

    def kill(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


class Library:
    def __init__(self):
        self.lock, self.guard, self.broken = threading.Lock(), None, False

    def ask(self, line):
        """A guard that fails is replaced, once. If the next one fails too, the answer is wrong."""
        with self.lock:
            for _ in range(2):
                if self.broken:
                    return False
                try:
                    self.start()
                    return self.guard.ask(line)
                except (OSError, EOFError, TimeoutError):
                    self.stop()
                except BaseException:  # interrupted: the answer to come is not that of the next
                    self.stop()
                    raise
            return False

    def start(self):
        if self.guard:
            return
        try:
            self.guard = Guard()
        except (OSError, EOFError, TimeoutError) as error:
            self.broken = True
            say_once(f"math: the process of math-verify does not start: {error}")
            raise

    def stop(self):
        if self.guard:
            self.guard.kill()
        self.guard = None


library = Library()


def stop():
    library.stop()


def forget():
    """After a fork: the process is the parent's, and its answers too."""
    global library
    if library.guard:
        kept.append(library.guard)
    library = Library()


kept = []  # a guard of the parent: were it freed here, its pipes would be closed by surprise
atexit.register(stop)
os.register_at_fork(after_in_child=forget)


@functools.lru_cache(4096)
def asked(line):
    return library.ask(line)


def ask(questions):
    """[(references, answers)] -> does each reference find an equal answer? False without the
    library. Never raises."""
    if not available():
        return False
    return asked(json.dumps(questions).encode() + b"\n")
