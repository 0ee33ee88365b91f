"""A run's folder and its checkpoints. Whatever interrupts a run, nothing that was saved is lost.

Files are written beside their place and then moved there, the previous checkpoint is kept, damage
is noticed when a file is read, and one folder belongs to one run at a time.
"""
import contextlib
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import zipfile

import torch

from lib.options import Stop

# ---- the run's folder ----

def write(path, text):
    """Write a text file whole or not at all."""
    check_held(os.path.dirname(path))
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)


def read_config(out):
    """The options in the folder's config.json, or in its checkpoint where that file is lost; None
    when no run has begun there."""
    path, why = os.path.join(out, "config.json"), "it is gone"
    if os.path.exists(path):
        try:
            with open(path, encoding="utf-8") as file:
                stored = json.load(file)
            if isinstance(stored["method"], str):
                return stored
            why = f"method {stored['method']}"
        except (OSError, ValueError, TypeError, KeyError) as error:
            why = f"{type(error).__name__}: {error}"
    state, _ = load_last(out)
    if state is None and not os.path.exists(path):
        return None
    if state is None:
        raise Stop(f"{path} cannot be read ({why}); choose another --out")
    print(f"warning: {path} cannot be read ({why}); the checkpoint has the options too",
          file=sys.stderr)
    return state["options"]


# what a kill can leave behind: half of a file of ours
HALF = re.compile(r"(ckpt\.pt\.\d+|config\.json|result\.json|metrics\.jsonl|samples\.txt)\.tmp")
LOCK = re.compile(r"lock\.\d+")
LOCKS = []  # open files: their locks last until they are closed, or this process dies in any way


def claim_folder(cfg):
    """Make the run's folder and hold it. Stop when another process holds it, when it cannot be
    written to, or when a new run finds anything in it."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    own = os.path.join(cfg.out, f"lock.{rank}")
    try:
        os.makedirs(cfg.out, exist_ok=True)
        check_ours(cfg)  # before there is anything of ours in it
        lock(own)
        if rank:
            return
        for name in os.listdir(cfg.out):  # ranks of an earlier run may have outlived their launcher
            if LOCK.fullmatch(name) and int(name[5:]) >= world:
                lock(os.path.join(cfg.out, name))
        for name in filter(HALF.fullmatch, os.listdir(cfg.out)):
            os.remove(os.path.join(cfg.out, name))
        tempfile.TemporaryFile(dir=cfg.out).close()  # can you write there?
    except OSError as error:
        raise Stop(f"cannot write to {cfg.out} ({error.strerror}); choose another --out") from None
    if not cfg.resume and holds_run(cfg.out):
        raise Stop(f"{cfg.out} holds a run already; add --resume to continue it, "
                   "or choose another --out")


def check_ours(cfg):
    """Stop when a new run would begin in a folder that holds something, and no run."""
    held = [name for name in os.listdir(cfg.out)
            if not LOCK.fullmatch(name) and not HALF.fullmatch(name)]
    if held and not cfg.resume and not holds_run(cfg.out):
        raise Stop(f"{cfg.out} is not empty and holds no run; choose another --out")


def holds_run(folder):
    return any(os.path.lexists(os.path.join(folder, name)) for name in ("config.json", "ckpt.pt"))


def lock(path):
    """Hold a lock file until release_folder(). No lock where the system has no fcntl."""
    file = open(os.path.abspath(path), "a")
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not in_its_place(file):
            raise BlockingIOError  # its holder removed it between our two lines
    except ImportError:
        pass
    except BlockingIOError:
        file.close()
        raise Stop(f"another process writes to {os.path.dirname(path)}; wait for its end, "
                   "or choose another --out") from None
    LOCKS.append(file)  # only what we hold is ours to remove


def check_held(folder):
    """Stop when a folder that we hold was moved away, removed or replaced: another run may be in
    its place."""
    for file in LOCKS:
        if os.path.dirname(file.name) == os.path.abspath(folder) and not in_its_place(file):
            raise Stop(f"{folder} is not the folder that this run began in: it was moved or "
                       "removed; what was saved went with it, --resume goes on from there")


def in_its_place(file):
    """Is an open file still the one that its name leads to?"""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    return False


def release_folder():
    """Let go of the locks. A folder that holds nothing else (the run was refused) goes too."""
    while LOCKS:
        file = LOCKS.pop()
        folder = os.path.dirname(file.name)
        with contextlib.suppress(OSError):  # a link, a mount point
            if in_its_place(file) and os.listdir(folder) == [os.path.basename(file.name)]:
                os.remove(file.name)
                if folder != os.getcwd():
                    os.rmdir(folder)
        file.close()


def log(out, line):
    """Append a line to metrics.jsonl; what is no number in JSON becomes null."""
    check_held(out)
    line = {name: None if isinstance(x, float) and not math.isfinite(x) else x
            for name, x in line.items()}
    with open(os.path.join(out, "metrics.jsonl"), "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line that was cut would swallow this one
                file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")


def read_log(out):
    """The lines of metrics.jsonl, one an update; without those that cannot be read."""
    path, lines = os.path.join(out, "metrics.jsonl"), []
    if not os.path.exists(path):
        return lines
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and isinstance(found.get("step"), int):
                lines.append(found)
    return lines


def write_result(r, result):
    write(os.path.join(r.cfg.out, "result.json"), json.dumps(result, indent=1))


def add_samples(r, texts):
    """Append to samples.txt: [(what it is, text)]."""
    check_held(r.cfg.out)
    with open(os.path.join(r.cfg.out, "samples.txt"), "a", encoding="utf-8") as file:
        file.writelines(f"--- step {r.step}, {what}\n{text}\n" for what, text in texts)


def restore_log(out, steps, lines):
    """Write metrics.jsonl as it was at the checkpoint, which holds its lines, whatever became of
    the file; and drop the samples of later steps."""
    write(os.path.join(out, "metrics.jsonl"), "".join(json.dumps(line) + "\n" for line in lines))
    path = os.path.join(out, "samples.txt")
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            # [before, step, sample, step, ...]
            parts = re.split(r"^(?=--- step (\d+), )", file.read(), flags=re.M)
        samples = zip(parts[1::2], parts[2::2])
        write(path, "".join(text for step, text in samples if int(step) <= steps))


# ---- checkpoints ----

def save(path, state, keep_previous=False):
    """Atomic: write beside the place, flush to disk, then move. keep_previous: keep the old one."""
    check_held(os.path.dirname(path))
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and os.path.exists(path):
            os.replace(path, path + ".previous")
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch on a full disk
        if os.path.exists(temporary):
            os.remove(temporary)
        why = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise Stop(f"cannot write {path} ({why}); earlier checkpoints are untouched: "
                   "free some space, then --resume") from None


def load(path):
    """A checkpoint, tensors and plain types only. Stop when it cannot be read, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch.load does not compare the archive's checksums
                raise ValueError("a checksum is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        if os.path.exists(f"{path}.previous"):
            raise Stop(f"{path} was not yet in its place when the run was killed: go on with it "
                       "by --resume first") from None
        seen = "" if os.path.isabs(path) else f" (seen from {os.getcwd()})"
        raise Stop(f"no checkpoint at {path}{seen}; it takes a run's folder on your disk, or a "
                   "folder of public weights") from None
    except Exception as error:  # a file that was cut, or is of something else, fails in many ways
        why = str(error).split("\n")[0][:100] or type(error).__name__
        raise Stop(f"{path} is no checkpoint that can be read ({why})") from None


def content_hash(tensors):
    """A hash of the names, shapes and bytes of {name: tensor}."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        digest.update(x.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_finite(tensors, what):
    """Stop when a weight is not a number or infinite: what follows from it would be nonsense."""
    if not all(bool(torch.isfinite(x).all()) for x in tensors.values()):
        raise Stop(f"{what}: weights that are not finite")


def check_run(state, path):
    """Stop when what a file holds is no run's checkpoint."""
    if not isinstance(state, dict) or not isinstance(state.get("options"), dict):
        raise Stop(f"{path} is a model, not a run: give a run's output folder")


def load_last(out):
    """The newest readable checkpoint of a folder, its path; None, "" when there is none yet."""
    path = os.path.join(out, "ckpt.pt")
    found = [p for p in (path, path + ".previous") if os.path.exists(p)]
    for p in found:
        try:
            state = load(p)
            check_run(state, p)
        except Stop as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        # the next save would move the unreadable one over the good one
        if p != path and os.path.exists(path):
            os.replace(path, path + ".corrupt")
        return state, p
    if found:
        raise Stop(f"no checkpoint in {out} can be read; move the folder away and start again")
    return None, ""
