"""A made-up world is written as a whole or not at all, and never over files of yours."""
import os
import shutil
import sys


def write_whole(folder, write):
    """Let write(path) fill a folder beside this one, which gets the name once it is done. Ends the
    program when the folder holds anything, or cannot be written."""
    folder = os.path.normpath(folder)
    beside = folder + ".unfinished"
    try:
        if os.path.isdir(folder) and os.listdir(folder):
            sys.exit(f"{folder} holds files already; name another folder, or delete it")
        shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
        os.makedirs(beside)
        write(beside)
        os.replace(beside, folder)
    except OSError as error:
        sys.exit(f"cannot write {error.filename or folder}: {error.strerror}")
