"""Answer a question by hand: search[words], answer[words]. Or see what searching finds.

    python -m envs.searchqa --data PATH               # play; help says how
    python -m envs.searchqa --data PATH --check       # by family: what searching finds
    python -m envs.searchqa --index 1000000           # time and memory of an index of that size
"""
import argparse
import sys

from envs import by_hand
from envs.lib.bm25 import measure
from envs.searchqa import LEVELS, check, make


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="",
                        help="a file of questions or a folder of them; else $SEARCHQA_DATA")
    parser.add_argument("--level", type=int, default=2, choices=LEVELS)
    parser.add_argument("--seed", type=int, default=0, help="which question of train")
    parser.add_argument("--check", action="store_true",
                        help="by family: how many questions, and what searching finds")
    parser.add_argument("--index", type=int, default=0, metavar="PASSAGES",
                        help="time and memory of an index of so many generated passages")
    args = parser.parse_args()
    try:
        if args.index:
            return measure(args.index)
        env = make(data=args.data, level=args.level)
    except ValueError as error:
        sys.exit(str(error))
    if args.check:
        check.check(env)
    else:
        by_hand(env, args.seed, "train")


if __name__ == "__main__":
    main()
