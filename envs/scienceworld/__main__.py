"""Play a task by hand, or hold the parser against the simulator's object tree.

    python -m envs.scienceworld --level 1 --seed 3     # play; help says how
    python -m envs.scienceworld --parser 1000          # read so many looks around
"""
import argparse
import random
import sys

from envs import by_hand
from envs.scienceworld import LEVELS, check, make


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--level", type=int, default=1, choices=LEVELS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parser", type=int, default=0,
                        help="read so many looks around instead, and score what was read")
    args = parser.parse_args()
    try:
        env = make(level=args.level, turns=10**6)
    except ValueError as error:
        sys.exit(str(error))
    if args.parser:
        check.measure(env, args.parser, random.Random(args.seed))
    else:
        by_hand(env, args.seed, "train")


if __name__ == "__main__":
    main()
