"""Play a house by hand; `help` says how.

    python -m envs.house --level 2 --seed 3
"""
import argparse

from envs import by_hand
from envs.house import LEVELS, House
from envs.house.text import STYLES


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--level", type=int, default=2, choices=LEVELS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", default="plain", choices=STYLES)
    args = parser.parse_args()
    by_hand(House(args.level, args.text), args.seed, "train")


if __name__ == "__main__":
    main()
