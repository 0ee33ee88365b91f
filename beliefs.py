"""Textual belief states, what lies below the method: who sees what, states as text, the warm start.

A world model (arXiv 2606.27681) predicts a text world's observation o' after an action a. Three
formulations use the history h in different ways, and write a state s and a next state s':

    stateless  o' ~ p(. | h, a)                                     no state
    leaky      s, s', o' ~ p(. | h, a)                              states, and always the history
    strict     s ~ p(. | h);  s' ~ p(. | s, a);  o' ~ p(. | s', a)  the history once, then states

One language model learns all five prompts. What stands in each is what the paper is about: in the
strict formulation a prediction sees a state and an action and nothing else (strict mediation).
worldmodel.py trains the model by reward. A history is a list of Moments, an Example one with its
future (envs/record.py); cfg is worldmodel.Config.

This file, in the order the data flows: prompts -> states as text -> the worlds and the model that a
run starts from -> the warm start, which teaches all prompts from demonstrated states.
"""
import dataclasses
import math
import os
import sys
from dataclasses import dataclass

import torch
from tqdm import tqdm

import envs
import imagine
import run
import sft
import tokenizer
from envs import record
from envs.house import text as house
from lib.cache import cached, locked
from lib.start import check_shape, load_model
from model import GPT, small_config
from sampler import Sampler, choose_compile, generate, sampling_dtype


@dataclass
class WorldModel:
    """A language model and its prompts. Its roles are special tokens that say what to write."""
    OBSERVE, LEAKY, ENCODE, TRANSITION, DECODE = ROLES = (
        "<|observe|>", "<|leaky|>", "<|encode|>", "<|transition|>", "<|decode|>")
    model: GPT
    tok: tokenizer.Tokenizer
    language: object  # the world's module: parse, PREDICATES, MAX_WORDS, room_of, FACTS_NEEDED
    form: imagine.Formulation
    window: int  # observations that a prompt shows
    max_state: int  # tokens
    max_observation: int  # tokens
    sampler: Sampler
    temperature: float = 0.0  # of imagination; training samples at 1
    dropped: int = 0  # turns that did not fit into a prompt's context
    taught: tuple = ROLES  # the prompts that the warm start teaches

    # Who sees what. Strict mediation is a property of prompts: encode sees the history and nothing
    # else, transition a state and an action, decode a next state and the action. States stand in
    # prompts as the ids that were sampled.

    def observe_prompt(self, past, action):  # h, a -> o'
        return self.history(past) + self.asked(action, self.OBSERVE)

    def leaky_prompt(self, past, action):  # h, a -> s, s', o'
        return self.history(past) + self.asked(action, self.LEAKY)

    def encode_prompt(self, past):  # h -> s
        return self.history(past) + self.role(self.ENCODE)

    def transition_prompt(self, state, action):  # s, a -> s'
        return state + [self.tok.turn_id] + self.asked(action, self.TRANSITION)

    def decode_prompt(self, state, action):  # s', a -> o'
        return state + [self.tok.turn_id] + self.asked(action, self.DECODE)

    def asked(self, action, role):
        return self.tok.encode_turn("assistant", action) + self.role(role)

    def role(self, name):
        return [self.tok.role_id(name)]

    def mark(self):  # between s and s' of a leaky answer
        return self.role(self.TRANSITION)

    def history(self, past):
        """The last observations and the actions between them, the oldest dropped until they fit."""
        shown = past[-self.window:]  # window 0: all of it
        turns = [(self.tok.encode_turn("assistant", m.action) if i else [])
                 + self.tok.encode_turn("user", m.text) for i, m in enumerate(shown)]
        longest_answer = 2 * self.max_state + self.max_observation  # leaky's
        room = self.model.cfg.context - longest_answer - 16  # 16: the action, the role, marks
        while len(turns) > 1 and sum(map(len, turns)) > room:
            turns.pop(0)
            self.dropped += 1
        # one turn alone may be too long, when its observation was imagined
        return [token for turn in turns for token in turn][-room:]

    def reply(self, prompts, k, max_new, streams, temperature):
        """k replies to each prompt, prefilled from position 0: no cache carries a history over."""
        return generate(self.sampler, prompts, k, max_new, streams, self.tok.stop_ids, temperature)

    def read_state(self, reply):
        """The facts of a state that was written to its end; None when malformed."""
        return parse_state(self.tok.decode(reply.body), self.language) if reply.ended else None

    def leaky_sections(self, ids):
        """"s <|transition|> s' <|decode|> o'" -> ids of s, s', o'; None from a missing mark on."""
        sections = []
        for mark in (*self.role(self.TRANSITION), *self.role(self.DECODE)):
            if mark not in ids:
                return (sections + [None] * 3)[:3]
            sections.append(ids[:ids.index(mark)])
            ids = ids[ids.index(mark) + 1:]
        return [*sections, ids]

    def read_section(self, ids):
        """The facts of a state in a leaky answer; None when malformed or longer than max_state."""
        if ids is None or len(ids) > self.max_state:
            return None
        return parse_state(self.tok.decode(ids), self.language)

    def state_text(self, facts):
        return state_text(facts, self.language)


# ---- states as text ----

def parse_state(text, language=house, known=True):
    """"in apple counter; at hall" -> [("in", "apple", "counter"), ("at", "hall")], the facts in
    order, repeated ones included. None when malformed: an unknown predicate, a wrong number of
    arguments, an argument that is repeated or too long, or no fact at all while some are known
    (otherwise an empty state would collect the no-duplicates bonus).

    language: PREDICATES {name: number of arguments} and MAX_WORDS an argument; arguments of several
    words are divided by commas. Paper, section "state format"; emptiness is our reading."""
    if not text.strip():
        return None if known else []
    facts = []
    for item in text.split(";"):
        predicate, *words = item.split() or [""]
        arguments = words
        if language.MAX_WORDS > 1:
            arguments = [" ".join(argument.split()) for argument in " ".join(words).split(",")]
        known_form = len(arguments) == language.PREDICATES.get(predicate, -1)
        repeated = len(set(arguments)) < len(arguments)
        fitting = all(1 <= len(argument.split()) <= language.MAX_WORDS for argument in arguments)
        if not known_form or repeated or not fitting:
            return None
        facts.append((predicate, *arguments))
    return facts


def state_text(facts, language=house):
    between = " " if language.MAX_WORDS == 1 else ", "
    return "; ".join(f"{predicate} {between.join(arguments)}" for predicate, *arguments in facts)


# ---- the worlds and the model that a run starts from ----

def open_worlds(cfg):
    """-> {level: envs.FactWorld}. A slow world's games are played once and kept in --cache."""
    text = {"text": cfg.text} if cfg.text else {}
    no_facts = run.Stop(f"{cfg.env} is no text world with facts; "
                        "use --env house, textworld or scienceworld")
    if "level" in envs.unused_options(cfg.env):
        raise no_facts
    try:
        worlds = {int(level): envs.make(cfg.env, data=cfg.data, level=int(level), **text)
                  for level in cfg.levels.split(",")}
    except ValueError as error:
        raise run.Stop(f"--env {cfg.env} --levels {cfg.levels}: {error}") from None
    if not all(hasattr(world, "facts") for world in worlds.values()):
        raise no_facts
    for level, world in worlds.items():
        if world.record_turns:
            os.makedirs(cfg.cache, exist_ok=True)
            with locked(os.path.join(cfg.cache, f"games-{cfg.env}-{level}.lock")):
                world.records = record.record(world, cfg.env, level, cfg.cache)
    return worlds


def open_model(cfg, worlds, device):
    """-> WorldModel, its checkpoint: --senior, or a warm start, made once and cached."""
    first = next(iter(worlds.values()))
    max_state = cfg.max_state or first.max_state
    longest = 2 * max_state + first.max_observation  # an answer, tokens
    fixed = longest + 24  # beside the history: an action, the role, the marks between
    needed = fixed + (cfg.window or 16) * (first.max_observation + 5)  # 5: a turn's own marks
    model, tok = (senior_model(cfg, device) if cfg.senior
                  else fresh_model(cfg, worlds, needed, device))
    if model.cfg.context < fixed + (cfg.window or 16) * 5:
        raise run.Stop(f"a context of {model.cfg.context} tokens does not hold two states and an "
                       f"observation; raise --context to {needed}")

    decoded = 0 if cfg.formulation == "stateless" else cfg.steps * longest
    chains = cfg.A + cfg.A * cfg.B + cfg.A * cfg.B * cfg.C  # samples of one tree
    rows = max(512, cfg.group, chains)  # decoded at once
    sampler = Sampler(model, rows, dtype=sampling_dtype(cfg, device),
                      compile=choose_compile(cfg.compile, device, decoded))
    w = WorldModel(model, tok, first.language, imagine.FORMULATIONS[cfg.formulation], cfg.window,
                   max_state, first.max_observation, sampler)
    if cfg.lessons == "own":
        w.taught = OWN_ROLES[cfg.formulation]
    steps = cfg.warm_steps or first.warm_steps
    return w, cfg.senior or warm_start(w, worlds, cfg, "world", steps)


def senior_model(cfg, device):
    """-> the model of --senior, its tokenizer"""
    model, tok, _ = load_model(cfg.senior, device)
    if tuple(tok.roles) != WorldModel.ROLES:
        raise run.Stop(f"{cfg.senior} is no world model: its vocabulary lacks the roles")
    if not cfg.resume:
        check_shape(cfg, "senior", cfg.senior, model.cfg)
    return model, tok


def fresh_model(cfg, worlds, needed, device):
    """-> a model from nothing, with a context of `needed` tokens unless --context says another,
    and its tokenizer"""
    tok = open_tokenizer(cfg, worlds, next(iter(worlds.values())))
    torch.manual_seed(cfg.seed)
    context = cfg.context or -(-needed // 64) * 64  # rounded up
    return GPT(small_config(tok.n_vocab, context, cfg.layers, cfg.width)).to(device), tok


def open_tokenizer(cfg, worlds, first):
    """The world's words are tokens; so are the roles."""
    try:
        if cfg.tokenizer != "trained":
            return tokenizer.load(cfg.tokenizer, WorldModel.ROLES)
    except ValueError as error:
        raise run.Stop(str(error)) from None
    examples = record.examples(worlds, range(200), "train", "words")
    moments = [m for e in examples for m in e.past + e.future]
    texts = [text for m in moments
             for text in (m.action, m.text, state_text(sorted(m.facts), first.language))]
    return tokenizer.of_world(first, texts, WorldModel.ROLES)


# ---- the warm start: all five prompts, on partial and noisy states (envs/record.py) ----

OWN_ROLES = {"stateless": (WorldModel.OBSERVE,), "leaky": (WorldModel.LEAKY,),
             "strict": (WorldModel.ENCODE, WorldModel.TRANSITION, WorldModel.DECODE)}


def supervised(pairs, device, prompts=False):
    """[(prompt, answer)] as ids -> tokens, mask: [R, T], True on answers (prompts: there too)."""
    if not pairs:
        raise run.Stop("no demonstration fits into the context; raise --context")
    return sft.padded([(prompt + answer,
                        [int(prompts and i > 0) for i in range(len(prompt))] + [1] * len(answer))
                       for prompt, answer in pairs], device)


def warm_start(w, worlds, cfg, name, steps, lessons=record.lessons):
    """Teach w the format, or take the weights that the same recipe made before -> their file,
    which bears the name"""
    recipe = {"name": f"{name}-{cfg.env}-{cfg.seed}", "steps": steps, "lr": cfg.sft_lr,
              "rows": cfg.sft_rows, "model": dataclasses.asdict(w.model.cfg),
              "tokenizer": w.tok.state(), "window": cfg.window, "max_state": w.max_state,
              "data": [world.fingerprint() for world in worlds.values()],
              # what it learns from, as ids: other prompts or states make another warm start
              "lessons": lessons(w, worlds, 0, 32, cfg.seed)}
    path = cached(recipe, lambda: train_warm(w, worlds, cfg, steps, lessons), cfg.cache)
    try:
        w.model.load_state_dict(load_model(path)[0].state_dict())
    except run.Stop as stop:
        raise run.Stop(f"{stop}; delete it, and the same command makes it again") from None
    return path


def train_warm(w, worlds, cfg, steps, lessons=record.lessons):
    """Supervised training on lessons (of w's roles) -> a checkpoint. In a world of prose, prompts
    count too."""
    torch.manual_seed(cfg.seed)
    optimizer, device = sft.make_optimizer(w.model, cfg.sft_lr), w.model.embed.weight.device
    prompts = any(world.prose for world in worlds.values())
    with tqdm(total=steps, desc="warm start: world model", file=sys.stderr, mininterval=1) as bar:
        for step in range(steps):
            for group in optimizer.param_groups:  # up, then down to a tenth
                down = 0.55 + 0.45 * math.cos(math.pi * step / steps)
                group["lr"] = cfg.sft_lr * min(1, (step + 1) / 50) * down
            pairs = lessons(w, worlds, step, cfg.sft_rows, cfg.seed)
            stats = sft.update(w.model, optimizer, *supervised(pairs, device, prompts))
            if stats["skipped"]:
                raise run.Stop(f"the warm start's loss is not finite at step {step + 1}; "
                               "lower --sft-lr")
            bar.update()
            bar.set_postfix(loss=f"{stats['loss']:.3f}")
    return {"model": w.model.state_dict(), "model_config": dataclasses.asdict(w.model.cfg),
            "tokenizer": w.tok.state(), "loss": stats["loss"]}
