"""Play games with a trained world model. Each turn it imagines series of commands, and plays the
first command of the series that reaches most of the goal, soonest.

    python -m claims.planner out/worldmodel-house-0 --games 32

Four players on the same held-out games: one that plays at random, the expert, a planner that
imagines with the true simulator, and the same planner with the run's model. Writes plan.json into
the run's folder. It needs a world that says which commands an imagined state allows: the house.
"""
import argparse
import copy
import json
import math
import os
import random
import sys

import run
import train
from envs.record import Moment


def plan(player, env, tasks, split, seed, w=None, sequences=64, horizon=5):
    """Play games. player: "random", "expert", "simulator" or "model" (w). The last two shoot at
    random: imagine `sequences` series of `horizon` plausible commands, take the first command of
    the one that reaches the most goal facts, soonest, and imagine again. Every turn begins anew
    from the last observations, in all formulations: what is put to use are some steps of
    imagination, not a long memory. -> {"games", "success", "error" (its standard error), "turns"
    (mean; a game that is lost takes them all)}"""
    games = [copy.copy(env) for _ in tasks]
    for game, task in zip(games, tasks):
        game.reset(task, split)
    rng = [random.Random(f"plan {seed} {task}") for task in tasks]
    pasts = [[Moment("", game.observation(), game.visible(), None, None)] for game in games]
    won, alive = [0.0] * len(games), list(range(len(games)))
    while alive:
        if player in ("model", "simulator"):
            playing = [[x[i] for i in alive] for x in (games, pasts, rng)]
            commands = shoot(w, *playing, sequences, horizon)
        elif player == "random":
            commands = [rng[i].choice(games[i].actions()) for i in alive]
        else:
            commands = [games[i].demo(rng[i], "expert")[0] for i in alive]
        for i, command in zip(alive, commands):
            won[i] += games[i].step(command).reward
            pasts[i].append(Moment(command, games[i].observation(), games[i].visible(), None, None))
        alive = [i for i in alive if not won[i] and games[i].turn < games[i].max_turns]
    mean = sum(won) / len(won)
    return {"games": len(games), "success": mean, "error": math.sqrt(mean * (1 - mean) / len(won)),
            "turns": sum(game.turn for game in games) / len(games)}


def shoot(w, games, pasts, rng, sequences, horizon):
    """-> the command to play in each game. Without w the true simulator imagines."""
    minds = games if w is None else w.form.begin(w, pasts)
    beliefs = [known_to(w, game, past) for game, past in zip(games, pasts)]
    of = [i for i in range(len(games)) for _ in range(sequences)]  # the game of each sequence
    minds, beliefs = [minds[i] for i in of], [beliefs[i] for i in of]
    first, best = None, [(-1.0, 0.0)] * len(of)
    for h in range(horizon):
        actions = [rng[i].choice(games[i].plausible(belief)) for i, belief in zip(of, beliefs)]
        first = first or actions
        minds, beliefs = follow(w, minds, beliefs, actions, h)
        reached = [(len(games[i].goal() & belief), -h) for i, belief in zip(of, beliefs)]
        best = [max(pair) for pair in zip(best, reached)]
    chosen = []
    for i in range(len(games)):
        mine = range(i * sequences, (i + 1) * sequences)
        top = max(best[j] for j in mine)
        chosen.append(first[rng[i].choice([j for j in mine if best[j] == top])])
    return chosen


def known_to(w, game, past):
    """The facts that a plan starts from: the simulator's, or what the observations in the window
    told, by rule and not by model. The same in all formulations, so that they differ by what they
    predict."""
    if w is None:
        return game.facts()
    belief = frozenset()
    for moment in past[-w.window:]:
        belief = w.language.remember(belief, moment.stated)
    return belief


def follow(w, minds, beliefs, actions, h):
    """One imagined step of all sequences; those that are still the same are imagined once
    -> minds, beliefs"""
    if w is None:
        minds = [mind.clone() for mind in minds]
        for mind, action in zip(minds, actions):
            mind.step(action)
        return minds, [mind.facts() for mind in minds]

    def key(mind):
        if w.form.name == "strict":
            return tuple(mind.ids)
        return tuple((m.action, m.text) for m in mind)
    keys = [(key(mind), action) for mind, action in zip(minds, actions)]
    distinct = {k: (mind, action) for k, mind, action in zip(keys, minds, actions)}
    found = dict(zip(distinct, w.form.imagine(w, *zip(*distinct.values()), h)))
    steps, language = [found[k] for k in keys], w.language
    return ([step.mind for step in steps],
            [language.remember(b, language.parse(step.text)) for b, step in zip(beliefs, steps)])


def play(folder, n):
    """n games of each player -> {player: what plan() found}; the model's by its formulation"""
    _, r = train.reopen(folder, "worldmodel")
    env = r.worlds[min(r.worlds)]
    if not hasattr(env, "plausible"):
        raise run.Stop(f"{r.cfg.env} does not tell which commands an imagined state allows; "
                       "use a run of --env house")
    tasks = range(1000 * r.cfg.seed, 1000 * r.cfg.seed + n)  # every seed has its own
    games = (env, tasks, r.cfg.final_split, r.cfg.seed)
    found = {player: plan(player, *games) for player in ("random", "expert", "simulator")}
    return {**found, r.w.form.name: plan("model", *games, w=r.w)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a world-model run's output folder")
    parser.add_argument("--games", type=int, default=32, help="games of each player [32]")
    args = parser.parse_args(argv)
    try:
        found = play(args.run, max(1, args.games))
        run.write(os.path.join(args.run, "plan.json"), json.dumps(found, indent=1))
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    for player, x in found.items():
        success = run.cell((x["success"], x["error"]), max(1, args.games))
        print(f"plays as {player:10} success {success}, {x['turns']:.1f} turns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
