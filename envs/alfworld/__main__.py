"""Play a game by hand, check all games, or make some up.

    python -m envs.alfworld --data DIR --seed 3              # play; help says how
    python -m envs.alfworld --data DIR --check               # every game of every folder in it
    python -m envs.alfworld --data DIR --check --oracle      # by a player that need not search
    python -m envs.alfworld --data DIR --check --planner     # by the planner's plans
    python -m envs.alfworld --make DIR --games 960           # made-up games
"""
import argparse
import sys

from envs import SPLITS, by_hand
from envs.alfworld import check, made, make
from envs.alfworld.files import WHERE, folder_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="", help="the folder with json_2.1.1; else ALFWORLD_DATA")
    parser.add_argument("--check", action="store_true",
                        help="how many games load, how many the expert wins")
    parser.add_argument("--make", default="", metavar="DIR",
                        help="write made-up games into this folder")
    parser.add_argument("--games", type=int, default=0,
                        help="of a folder, to check; 0: all. To make, 960 unless you say otherwise")
    parser.add_argument("--oracle", action="store_true",
                        help="check the player who knows where everything is")
    parser.add_argument("--planner", action="store_true",
                        help="check the planner's plans, not the walkthroughs")
    parser.add_argument("--split", default="train", choices=SPLITS)
    parser.add_argument("--seed", type=int, default=0, help="which game to play")
    parser.add_argument("--level", type=int, default=3,
                        help="which families and how many games: 1 to 3")
    args = parser.parse_args()
    if args.games < 0:
        parser.error("--games is 0 or more")
    if args.make:
        return made.command(args.make, args.games or 960)
    data = folder_of(args.data)
    if args.check:
        skill = "oracle" if args.oracle else "expert"
        games, won = check.check(data, args.games, args.planner, skill)
        if not games:
            sys.exit(f"no ALFWorld games in {data}: {WHERE}")
        sys.exit(0 if won >= 0.95 * games else 1)
    try:
        by_hand(make(data, args.level), args.seed, args.split)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
