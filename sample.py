"""Look at a trained run, play a game yourself, or watch a model play it.

    python sample.py out/tandem-arithmetic-0 --n 3   # chains of the senior and of the team
    python sample.py out/worldmodel-house-0          # states, and nine imagined steps
    python sample.py out/atod-house-0                # episodes, with T-DUR's weight of each turn
    python sample.py out/atod-house-0 --html a.html  # the same and its curves, as a page to show
    python sample.py --env house --play              # play any world yourself: help, ?, hint
    python sample.py --env house --agent out/atod-house-0     # or watch a model play it

The senior's tokens are blue and the junior's orange; without colours (a pipe, NO_COLOR) the
junior's stand in «marks». What is shown of a run is its method's own `show(r, n)`. """
import argparse
import sys

import envs
import pages
import run
import sft
import train
from lib.start import load_model
from rollout import Sampling, open_env, rollout, succeeded
from sampler import Sampler


def open_world(args):
    """-> envs.Batch, opened as train.py would."""
    names = ("env", "data", "level", "text", "turns")
    cfg = sft.Config(**{name: getattr(args, name) for name in names})
    run.check_options(cfg)
    return open_env(cfg)


def watch(args):
    """A model plays; you see each turn when it is over."""
    env = open_world(args)
    model, tok, _ = load_model(args.agent, context=env.first.context)
    reset, step = env.reset_many, env.step_many

    def shown_reset(tasks, split):
        found = reset(tasks, split)
        print(found[0])
        return found

    def shown_step(rows, texts):
        found = step(rows, texts)
        print(run.printable(f"> {texts[0]}\n{found[0].observation}"), flush=True)
        return found
    env.reset_many, env.step_many = shown_reset, shown_step
    task = args.seed % (env.first.tasks(args.split) or args.seed + 1)
    how = Sampling(temperature=1.0 if args.temperature is None else args.temperature)
    streams = [(args.seed, "watch", task)]
    _, (episode,) = rollout(Sampler(model, 1), env, tok, [task], args.split, streams, how)
    won = "won" if succeeded(episode) else "lost"
    print(f"{won} in {episode['turns']} turns, reward {episode['reward']:.2f}")


def look(args):
    """What the run's method shows of it."""
    if args.html:
        pages.check(args.html)
    method, r = train.reopen(args.run, final_split=args.split, seed=args.seed)
    if args.temperature is not None:
        r.cfg.temperature = args.temperature
    if args.html:
        pages.write(args.html, method, r, args)
    else:
        method.show(r, args.n)


def read_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run's output folder")
    parser.add_argument("--n", type=int, default=3, help="how many tasks [3]")
    parser.add_argument("--split", default="test", choices=envs.SPLITS, help="which tasks [test]")
    parser.add_argument("--temperature", type=float,
                        help="of a policy's samples; 0: greedy [as trained]")
    parser.add_argument("--seed", type=int, default=0,
                        help="of the draws, or which task is played [0]")
    parser.add_argument("--html", default="", metavar="FILE",
                        help="of a run: write a page that stands alone, instead of text")
    parser.add_argument("--env", default="", help="a world to play, with --play or --agent")
    parser.add_argument("--play", action="store_true", help="you play")
    parser.add_argument("--agent", default="",
                        help="this model plays: a checkpoint or a run's folder")
    for name, kind in (("data", str), ("text", str), ("level", int), ("turns", int)):
        parser.add_argument(f"--{name}", type=kind, default=kind(),
                            help="of the world, as in train.py")
    args = parser.parse_args(argv)
    if bool(args.env) == bool(args.run) or bool(args.env) != (args.play != bool(args.agent)):
        parser.error("give a run's output folder, or --env NAME with either --play or --agent CKPT")
    if args.html and args.env:
        parser.error("--html is of a run's output folder")
    if args.n < 1:
        parser.error("--n is 1 or more")
    if args.seed < 0:
        parser.error("--seed is 0 or more")
    if args.temperature is not None and not 0 <= args.temperature <= 1000:
        parser.error("--temperature is 0 to 1000")
    return args


def main(argv=None):
    args = read_arguments(argv)
    run.plain_terminal()
    try:
        if args.agent:
            watch(args)
        elif args.play:
            envs.by_hand(open_world(args).first, args.seed, args.split)
        else:
            look(args)
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        run.reader_gone()
    except OverflowError as error:  # a run of another world, say
        print(f"error: a prompt does not fit the model: {error}", file=sys.stderr)
        return 2
    except (OSError, FloatingPointError, envs.Failed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
