"""Play a game by hand, or hold the environment and its parser against TextWorld's simulator.

    python -m envs.textworld --level 1 --seed 3    # play; help says how
    python -m envs.textworld --check 50            # does the expert win them; how fast it all is
    python -m envs.textworld --parser 2000         # precision and recall of the parser
"""
import argparse
import sys

from envs import by_hand
from envs.textworld import check, make
from envs.textworld.games import GAMES, LEVELS


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", type=int, default=0, metavar="GAMES",
                        help="does the expert win them; games made, starts and steps a second")
    parser.add_argument("--parser", type=int, default=0, metavar="OBSERVATIONS",
                        help="precision and recall of the parser on them")
    parser.add_argument("--level", type=int, default=0, choices=LEVELS,
                        help="one level; without it all four in turn, or the first to play")
    parser.add_argument("--game", default="cooking", choices=GAMES)
    parser.add_argument("--seed", type=int, default=0, help="which game to play")
    args = parser.parse_args()
    levels = [args.level] if args.level else list(LEVELS)
    try:
        worlds = [make(level=level, game=args.game) for level in levels]
        if args.check:
            check.check(worlds, args.check)
        if args.parser:
            check.score(worlds, args.parser)
        if not args.check and not args.parser:
            by_hand(worlds[0], args.seed, "train")
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
