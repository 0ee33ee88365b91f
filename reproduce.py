"""Run every arm of a paper's claim over several seeds -> a table with intervals, and a figure.

    python reproduce.py tandem --quick       # three seeds, the arms that matter: for a class
    python reproduce.py tandem --tune        # learning rates and KL weights, on other seeds
    python reproduce.py tandem               # ten seeds -> out/reproduce/tandem/
    python reproduce.py worldmodel
    python reproduce.py worldmodel --compare window1      # one observation in view, not four
    python reproduce.py worldmodel --compare games --seeds 5      # a planner plays with each model
    python reproduce.py worldmodel --seeds 3 --env textworld      # or scienceworld
    python reproduce.py atod
    python reproduce.py atod --seeds 3 --compare tdur     # when T-DUR's weights matter
    python reproduce.py tandem --redraw      # table and figure of docs/, without training
    python reproduce.py worldmodel --redraw --compare memory      # all windows in one figure

It says beforehand how long it takes, and goes on where it was stopped. The rules were fixed before
the runs: claims/README.md. The arms, tables and figures of a paper: claims/<paper>.py.
"""
import argparse
import json
import os
import sys

import claims
import claims.atod
import claims.games
import claims.realworlds
import claims.tandem
import claims.worldmodel
import run

PAPERS = {"tandem": claims.tandem, "worldmodel": claims.worldmodel, "atod": claims.atod}


def read_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", choices=list(PAPERS))
    parser.add_argument("--seeds", type=int, help="how many [10; with --quick 3]")
    parser.add_argument("--first-seed", type=int, default=101, help="they count from here [101]")
    parser.add_argument("--quick", action="store_true", help="fewer seeds, arms: 10 to 30 minutes")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a thread each [2]")
    of_worlds = (*claims.worldmodel.COMPARISONS, "games", "memory")
    parser.add_argument("--compare", default="paper", choices=[*of_worlds, "tdur"],
                        help="worldmodel: another window (unbounded: all), short: a short warm "
                             "start, games: a planner plays, memory: all windows; atod: tdur: "
                             "when weights matter [paper]")
    parser.add_argument("--env", default="house", choices=["house", *claims.realworlds.PAPER],
                        help="worldmodel: on which world [house]")
    parser.add_argument("--tune", action="store_true",
                        help="search the grid of settings, on valid tasks of seeds 99 and 100")
    parser.add_argument("--redraw", action="store_true",
                        help="train nothing: table and figure from the results in docs/")
    args = parser.parse_args(argv)
    if args.seeds is None:
        args.seeds = 3 if args.quick else 10
    if args.jobs < 1:
        parser.error("--jobs is 1 or more")
    if not 1 <= args.seeds <= max(claims.T_95):
        parser.error(f"--seeds is 1 to {max(claims.T_95)}")
    if args.tune and (args.compare != "paper" or args.env != "house"):
        parser.error("--tune is for a paper's own comparison")
    if args.quick and (args.compare != "paper" or args.env != "house"):
        parser.error("--quick is for a paper's own comparison")
    if args.compare == "memory" and not args.redraw:
        parser.error("--compare memory draws what the comparisons of windows found: add --redraw")
    own = {"worldmodel": of_worlds, "atod": ("paper", "tdur")}
    if args.compare not in own.get(args.paper, ("paper",)):
        parser.error(f"--compare {args.compare} is not for {args.paper}")
    if args.env != "house" and (args.paper != "worldmodel" or args.compare != "paper"):
        parser.error("--env is for worldmodel, without --compare")
    return args


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = read_arguments(argv)
    paper, more = PAPERS[args.paper], [] if args.paper == "tandem" else [args.compare]
    if args.compare == "games":
        paper = claims.games
    if args.env != "house":
        paper, more = claims.realworlds, [args.env]
    if args.redraw:
        try:
            print(paper.redraw(*more))
        except FileNotFoundError as error:
            again = " ".join(option for option in argv if option != "--redraw")
            print(f"there is no {error.filename}: reproduce.py {again} makes it")
        return
    folder = f"out/reproduce/{args.paper}{'-quick' if args.quick else ''}"
    os.makedirs(folder, exist_ok=True)
    if args.tune:
        paper.tune(folder, args.jobs)
    else:
        seeds = list(range(args.first_seed, args.first_seed + args.seeds))
        paper.reproduce(folder, seeds, args.jobs, *more, *([True] if args.quick else []))


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.abspath(__file__)))  # wherever you call it from
    try:
        main()
    except BrokenPipeError:
        run.reader_gone()
    except (run.Stop, OSError, json.JSONDecodeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it was stopped")
