"""What runs in a worker of the pool: a guard, which only watches, and its child, the player, which
holds the games."""
import contextlib
import copy
import os
import signal
import time
from multiprocessing.connection import Connection

import envs


def guard(fd, trainer, name, options):
    """Start the player. When the player or the trainer is gone, kill the process group, with all
    that an engine started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's: it ends its step first
    os.set_inheritable(fd, False)
    me, player = os.getpid(), os.fork()
    if player == 0:
        play(Connection(fd), me, name, options)
    os.close(fd)
    while os.getppid() == trainer and os.waitpid(player, os.WNOHANG) == (0, 0):
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def play(pipe, guard, name, options):
    """Answer calls until there is nobody to answer."""
    games = {}
    with contextlib.suppress(EOFError, OSError):
        while True:
            for row, method, args in pipe.recv():
                if os.getppid() != guard:
                    os.killpg(0, signal.SIGKILL)
                try:
                    pipe.send((True, act(games, row, method, args, name, options)))
                except Exception as error:
                    games.pop(row, None)  # the next reset gets a fresh one
                    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                    pipe.send((False, why))
    os.killpg(0, signal.SIGKILL)


def act(games, row, method, args, name, options):
    if not games:
        # It is never played: each game is a copy of it.
        games[None] = envs.make(name, **options)
    if row not in games:
        games[row] = copy.copy(games[None])
    if method == "replay":
        task, split, texts = args
        games[row].reset(task, split)
        return [games[row].step(text) for text in texts][-1]
    if method == "demonstration":
        return envs.demonstration(games[row], *args)
    return getattr(games[row], method)(*args)
