"""A cache of what is made once (warm starts, teachers, students): locked, checked, side by side."""
import contextlib
import glob
import hashlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context

import torch

from lib.files import check_finite, load, save
from lib.options import Stop


def cached(recipe, make, folder):
    """A recipe's checkpoint, made by make() the first time, found in the folder afterwards -> path.

    recipe: plain types, everything the result depends on; its "name" begins the file's name. A lock
    keeps two processes (ranks, say) from making the same one: the second waits, then finds it."""
    path = cache_path(recipe, folder)
    if os.path.exists(path) and not os.access(folder, os.W_OK):  # shared, to read only
        load(path)
        return path
    with locked(path + ".lock"):
        for left in glob.glob(glob.escape(path) + ".*.tmp"):  # by a kill
            os.remove(left)
        if os.path.exists(path):
            try:
                load(path)
                return path
            except Stop as damage:
                print(f"warning: {damage}; it is made again", file=sys.stderr)
        state = make()
        what = f"the warm start {recipe['name']} failed; lower --sft-lr"
        check_finite(state.get("model", {}), what)
        save(path, state)
    return path


def cache_path(recipe, folder):
    name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:10]
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise Stop(f"cannot write to {folder} ({error.strerror}); choose another --cache") from None
    return os.path.join(folder, f"{recipe['name']}-{name}.pt")


@contextlib.contextmanager
def locked(path):
    """Hold a lock file, until the process ends at the latest. No lock where there is no fcntl."""
    try:
        try:
            file = open(path, "w")
        except PermissionError:  # another user's, in a folder that both write to
            file = open(path, encoding="utf-8")
    except OSError as error:
        raise Stop(f"cannot write to {os.path.dirname(path)} ({error.strerror}); "
                   "choose another --cache") from None
    with file:
        try:
            import fcntl
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process, which holds {path}", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:
            pass
        yield


def cached_side_by_side(jobs, folder, device):
    """cached() for several: [(recipe, make)] -> paths. On a CPU with a core for each they are made
    at the same time, so make must be picklable: a module's function, or a partial of one."""
    missing = [job for job in jobs if not os.path.exists(cache_path(job[0], folder))]
    threads = torch.get_num_threads()
    if len(missing) > 1 and threads > 1 and device == "cpu":
        settings = (max(1, threads // len(missing)), os.getpid())
        spawn = get_context("spawn")
        with ProcessPoolExecutor(len(missing), spawn, worker_starts, settings) as pool:
            for work in [pool.submit(cached, *job, folder) for job in missing]:
                try:
                    work.result()
                except BrokenProcessPool:
                    raise Stop("a warm start's process was killed; what was finished is kept, "
                                   "run the same command again") from None
                except KeyboardInterrupt:  # the pool would wait until they are done
                    pool.shutdown(wait=False)
                    for process in active_children():
                        process.join(2)  # after Ctrl-C in a terminal they end by themselves
                        process.kill()
                    raise
    return [cached(recipe, make, folder) for recipe, make in jobs]


def worker_starts(threads, parent):
    """A process that makes a warm start dies with the one that asked for it."""
    def follow_parent():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
    threading.Thread(target=follow_parent, daemon=True).start()
    torch.set_num_threads(threads)
