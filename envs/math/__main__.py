"""Answer a problem by hand, or judge one answer against another.

    python -m envs.math --data PATH                # play; help says how
    python -m envs.math --judge '1/2' '0.5'        # the reference, then the answer
"""
import argparse
import sys

from envs import by_hand
from envs.math import library, make
from envs.math.answers import judge


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="", help="a file or a folder; else $MATH_DATA")
    parser.add_argument("--seed", type=int, default=0, help="which problem of train")
    parser.add_argument("--judge", nargs=2, metavar=("REFERENCE", "ANSWER"),
                        help="are the two equal?")
    args = parser.parse_args()
    if args.judge:
        reference, answer = args.judge
        right, _ = judge(reference, f"\\boxed{{{answer}}}", library.ask)
        print("equal" if right else "not equal")
        return
    try:
        env = make(args.data)
    except ValueError as error:
        sys.exit(str(error))
    print({split: env.tasks(split) for split in ("train", "valid", "test")})
    by_hand(env, args.seed, "train")


if __name__ == "__main__":
    main()
