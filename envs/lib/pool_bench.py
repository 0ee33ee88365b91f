"""How fast a world's games go in 1, 2, ... processes: steps a second of many games side by side,
with random commands of those that do something.

    python -m envs.lib.pool_bench textworld --workers 1,2 --games 16 --turns 15 --level 2
"""
import argparse
import random
import time

import envs
from envs.lib.pool import Pool


def measure(name, options, workers, games, turns, seed=0):
    """-> games begun a second, steps a second. What a worker starts once (imports, Java) is not
    counted; the engine of each game is."""
    env = envs.make(name, **options)
    env.workers = workers
    pool, rng = Pool(name, options, env), random.Random(seed)
    tasks = [i % (env.tasks("train") or games) for i in range(games)]
    pool.reset(range(workers), [0] * workers, "train")
    began = time.perf_counter()
    pool.reset(range(games), tasks, "train")
    starts = games / (time.perf_counter() - began)
    alive, steps, seconds = list(range(games)), 0, 0.0
    for _ in range(turns):
        found = pool.ask([(pool.where(row), row, "actions", ()) for row in alive])
        texts = [rng.choice(actions) for _, actions in found]
        began = time.perf_counter()
        answers = pool.step(alive, texts)
        seconds += time.perf_counter() - began
        steps += len(alive)
        alive = [row for row, step in zip(alive, answers) if not step.done]
    for number in list(pool.workers):
        pool.kill(number)
    return starts, steps / seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--games", type=int, default=16)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--data", default="")
    parser.add_argument("--level", type=int, default=0)
    args = parser.parse_args()
    options = {"data": args.data, "level": args.level}
    options = {name: value for name, value in options.items() if value}
    for workers in map(int, args.workers.split(",")):
        starts, steps = measure(args.env, options, workers, args.games, args.turns)
        print(f"{args.env}, {args.games} games, {workers} workers: {starts:.1f} games begun a "
              f"second, {steps:.0f} steps a second", flush=True)


if __name__ == "__main__":
    main()
