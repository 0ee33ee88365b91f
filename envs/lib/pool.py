"""Games of a slow engine, in processes of their own, side by side: envs.Batch uses it where an
environment asks for `workers`.

    trainer --pipe-- worker 0: games 0, 2, 4, ...
            --pipe-- worker 1: games 1, 3, 5, ...

A worker is a process group of two (player.py): a guard, which only watches, and a player, which
holds the games. What an engine starts, such as Java, is in the group too.

A worker that dies or hangs is killed with all that it started, and replaced. The episode it was
busy with ends as failed; the others that were in it are played again up to where they stood, in the
next worker. The guard kills its process group as soon as trainer or player is gone, whatever the
reason. Nothing here draws a random number: the answers are those of a loop, whatever the number of
workers. POSIX only.
"""
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from multiprocessing.connection import Connection, wait

import envs

# All that a worker is told stands in its argument, as data.
PLAY = """import json, sys
sys.path[:], packages, call = json.loads(sys.argv[1])
import envs
envs.__path__[:] = packages
from envs.lib import player
player.guard(*call)"""
FIRST = -1  # the row of Batch.first
START = 60  # seconds in which a worker must import its environment, beside its first answer's


class Pool:
    """Row r is a game in worker r % count. A call is (worker, row, method, arguments)."""

    def __init__(self, name, options, env):
        self.name, self.options, self.limit = name, options, env.time_limit
        self.count = env.workers if env.workers > 0 else min(cores(), 8)
        self.workers = {}  # number -> Worker, started when first needed
        self.home = 0  # the worker of Batch.first
        self.said = {}  # row -> task, split, texts up to now
        self.lost = set()  # rows whose game is lost
        self.stale = set()  # rows whose game must be played again, in a new worker
        # Attributes of Batch.first are read here, but it is played in a worker.
        env.reset = lambda task, split: self.reset([FIRST], [task], split)[0]
        env.step = lambda text: self.step([FIRST], [text])[0]

    def where(self, row):
        return self.home if row == FIRST else row % self.count

    def reset(self, rows, tasks, split):
        calls = [(self.where(row), row, "reset", (task, split)) for row, task in zip(rows, tasks)]
        found = self.insist(calls)
        self.begun(rows, tasks, split)
        return found

    def begun(self, rows, tasks, split):
        self.said.update({row: (task, split, []) for row, task in zip(rows, tasks)})
        self.lost -= set(rows)
        self.stale -= set(rows)

    def step(self, rows, texts):
        answers, lost = {}, set()
        left = {row: text for row, text in zip(rows, texts) if row not in self.lost}
        while left:  # once, and again for those whose worker another game took down
            found = self.ask([self.turn(row, text) for row, text in left.items()])
            for row, (fine, step) in zip(list(left), found):
                if fine is None:
                    continue
                text = left.pop(row)
                self.stale.discard(row)
                if fine:
                    answers[row] = step
                    self.said[row][2].append(text)
                else:
                    lost.add(row)
        self.lost |= lost
        return [failed() if row in self.lost else answers[row] for row in rows]

    def turn(self, row, text):
        """The call that takes a turn."""
        if row not in self.stale:
            return (self.where(row), row, "step", (text,))
        task, split, said = self.said[row]
        return (self.where(row), row, "replay", (task, split, [*said, text]))

    def demos(self, tasks, split, seed, skill):
        calls = [(i % self.count, FIRST, "demonstration", (task, split, seed, skill))
                 for i, task in enumerate(tasks)]
        found = self.insist(calls)
        if found:  # Batch.first stands where the last one began
            self.home = (len(found) - 1) % self.count
            self.begun([FIRST], [list(tasks)[-1]], split)
        return found

    def insist(self, calls):
        """Answers that must come: workers that fail are replaced, and all is asked once more.
        envs.Failed when that fails too."""
        for _ in range(2):
            answers = self.ask(calls)
            failing = {call[0]: why for call, (fine, why) in zip(calls, answers) if not fine}
            if not failing:
                return [value for _, value in answers]
            for number in failing:
                self.kill(number)
        raise envs.Failed(f"{self.name}: {failing.popitem()[1]}, twice")

    def ask(self, calls):
        """-> an answer for each call: (True, value), (False, why), or (None, why) for one that
        waited behind a call that took their worker down. All calls are sent before the first answer
        is awaited; a worker answers in order."""
        answers, due = [None] * len(calls), {}  # worker -> the calls it has yet to answer
        for i, (number, *_) in enumerate(calls):
            due.setdefault(number, []).append(i)
        try:
            for number in due.keys() - self.workers.keys():
                self.workers[number] = Worker(self.name, self.options)
            for number, queue in due.items():
                self.workers[number].send([calls[i][1:] for i in queue], self.limit)
            while due:
                until = min(self.workers[number].until for number in due)
                pipes = [self.workers[number].pipe for number in due]
                ready = wait(pipes, max(0, until - time.monotonic()))
                for number, queue in list(due.items()):
                    try:
                        answer = self.workers[number].receive(ready, self.limit)
                    except Exception as error:
                        late = isinstance(error, TimeoutError)
                        why = str(error) if late else "a worker died"
                        self.kill(number)
                        for i in due.pop(number):
                            answers[i] = (False if i == queue[0] else None, why)
                        continue
                    if answer:
                        answers[queue.pop(0)] = answer
                        if not queue:
                            del due[number]
        finally:  # interrupted: what is yet to come would pass for answers to the next calls
            for number in due:
                self.kill(number)
        for why in dict.fromkeys(why for fine, why in answers if fine is False):
            print(f"warning: {self.name}: {why}", file=sys.stderr)
        return answers

    def kill(self, number):
        """Another is started when it is needed."""
        if number in self.workers:
            self.workers.pop(number).kill()
        self.stale |= {row for row in self.said if self.where(row) == number}


def cores():
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def failed():
    info = {"success": False, "engine_failed": True, "truncated": False}
    return envs.Step("", 0.0, True, info)


class Worker:
    """A session and process group of its own, with the modules that the trainer has. It ends when
    its pipe is closed, too."""

    def __init__(self, name, options):
        ours, theirs = socket.socketpair()
        # So that a worker that stops in the middle of a message is noticed.
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", START, 0))
        call = [theirs.fileno(), os.getpid(), name, options]
        told = json.dumps([sys.path, list(envs.__path__), call])
        self.process = subprocess.Popen(
            [sys.executable, "-c", PLAY, told], stdin=subprocess.DEVNULL, stdout=2,
            start_new_session=True, pass_fds=[theirs.fileno()])
        theirs.close()
        self.pipe = Connection(ours.detach())
        self.until = time.monotonic() + START  # until when an answer has to be here

    def send(self, calls, limit):
        self.until = max(self.until, time.monotonic()) + limit
        with contextlib.suppress(OSError):  # it shows when the answer is due
            self.pipe.send(calls)

    def receive(self, ready, limit):
        """-> an answer, or None when it is too early. An error when there will be none."""
        if self.pipe in ready:
            answer, self.until = self.pipe.recv(), time.monotonic() + limit
            return answer
        if time.monotonic() >= self.until:
            raise TimeoutError(f"a worker gave no answer in {limit:g} s")

    def kill(self):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.pipe.close()
