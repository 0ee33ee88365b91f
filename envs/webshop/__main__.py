"""Shop by hand, or make a shop up.

    python -m envs.webshop --data out/shop                   # play; help says how
    python -m envs.webshop --make out/shop --products 800    # a made-up shop, in the file format
"""
import argparse
import sys

from envs import by_hand
from envs.lib.whole import write_whole
from envs.webshop import LEVELS, made, make


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="",
                        help="a folder with the official files; else WEBSHOP_DATA")
    parser.add_argument("--level", type=int, default=2, choices=LEVELS)
    parser.add_argument("--make", default="", metavar="DIR",
                        help="write a made-up shop into this folder")
    parser.add_argument("--products", type=int, default=300, help="of a made-up shop")
    parser.add_argument("--seed", type=int, default=0, help="which goal to play, or which shop")
    args = parser.parse_args()
    if args.products < 1:
        parser.error("--products is 1 or more")
    if args.make:
        return write_whole(args.make, lambda path: made.write(path, args.products, args.seed))
    try:
        by_hand(make(args.data, args.level), args.seed, "train")
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
