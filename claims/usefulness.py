"""State usefulness: how well the next observation can be said from a run's next states and the
action alone, by one decoder that grew up with none of the arms.

    python -m claims.usefulness out/worldmodel-house-0

state.F1 counts the facts that the next observation needs, so a state that remembers more loses
precision. This asks what a state is good for. The decoder is a fresh model of the run's size. It
learns to say the next observation from true states on training games, supervised: the fewest facts
that the observation needs, and more or fewer of the other true facts, which it learns not to say.
It is made once a seed, and is the same for all arms of that seed. Writes usefulness.json into the
run's folder: obs.F1 with the run's states, with the true minimal states (the ceiling), with as many
true facts as a state holds (a state that remembers all; it should be as good), and with no state
(the floor).
"""
import argparse
import dataclasses
import json
import os
import random
import sys

import torch

import beliefs
import run
import train
import worldmodel
from envs import record
from envs.record import fact_f1
from model import GPT
from sampler import Sampler

STEPS = 3000  # of the decoder, with the rows and the learning rate of the run's warm start


def remembers(w, moment, share, rng):
    """A true state: what the observation needs, and a share of the other facts as far as they fit
    -> its ids"""
    others = sorted(moment.facts - moment.needed)
    rng.shuffle(others)
    facts = set(moment.needed)
    for fact in others[:round(share * min(len(others), w.max_state))]:
        more = record.ordered(facts | {fact}, w.language.PREDICATES)
        if len(w.tok.encode(w.state_text(more))) < w.max_state:
            facts.add(fact)
    return record.as_many_as_fit(w, facts, rng)


def lessons(w, worlds, step, rows, seed):
    """A true next state and the action -> the observation: [(prompt ids, answer ids)]"""
    tasks = [seed * 10**7 + step * rows + i for i in range(rows)]
    rng, made = random.Random(f"decoder {seed} {step}"), []
    for example in record.examples(worlds, tasks, "train", f"decoder {seed}"):
        after = example.future[0]
        state = remembers(w, after, rng.random(), rng)
        answer = w.tok.encode(after.text) + [w.tok.end_id]
        made.append((w.decode_prompt(state, after.action), answer))
    return made


def decoder_of(r, steps=STEPS):
    """-> the seed's decoder, a WorldModel; made once and cached."""
    cfg, w = r.cfg, r.w
    torch.manual_seed(cfg.seed)
    model = GPT(w.model.cfg).to(r.device)
    decoder = dataclasses.replace(w, model=model, sampler=Sampler(model, 256), temperature=0.0)
    beliefs.warm_start(decoder, r.worlds, cfg, "decoder", steps, lessons)
    return decoder


def state_ids(w, facts):
    return w.tok.encode(w.state_text(facts))[:w.max_state]


def obs_f1(decoder, examples, states):
    """The mean obs.F1 of what the decoder says; states: the ids of each."""
    prompts = [decoder.decode_prompt(state, example.future[0].action)
               for example, state in zip(examples, states)]
    streams, scores = [("usefulness", i) for i in range(len(prompts))], []
    for first in range(0, len(prompts), 256):
        part = slice(first, first + 256)
        replies = decoder.reply(prompts[part], 1, decoder.max_observation, streams[part], 0.0)
        scores += [fact_f1(decoder.language.parse(decoder.tok.decode(reply.body)),
                           example.future[0].stated)
                   for reply, example in zip(replies, examples[part])]
    return sum(scores) / len(scores)


def measure(folder):
    """A run's folder -> {"usefulness", "ceiling", "all facts", "floor"}"""
    _, r = train.reopen(folder, "worldmodel")
    if r.cfg.formulation == "stateless":
        raise run.Stop(f"{folder}: a stateless model has no states")
    examples = worldmodel.held_out(r, r.cfg.final_split, r.cfg.test_problems or 300, 1)
    w, predicates = worldmodel.asked_as(r.w, r.cfg.formulation), r.w.language.PREDICATES
    minds = w.form.begin(w, [e.past for e in examples])
    steps = w.form.imagine(w, minds, [e.future[0].action for e in examples])
    decoder, rng = decoder_of(r), random.Random("all facts")
    after = [e.future[0] for e in examples]
    states = {"usefulness": [state_ids(w, step.next_state or []) for step in steps],
              "ceiling": [state_ids(w, record.ordered(m.needed, predicates)) for m in after],
              "all facts": [remembers(w, m, 1, rng) for m in after],
              "floor": [state_ids(w, []) for _ in after]}
    return {name: obs_f1(decoder, examples, found) for name, found in states.items()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's output folder")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        found = measure(args.run)
    except run.Stop as stop:
        print(f"error: {stop}", file=sys.stderr)
        return stop.code
    run.write(os.path.join(args.run, "usefulness.json"), json.dumps(found))
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
