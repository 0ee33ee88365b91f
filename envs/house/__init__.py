"""A house of rooms, doors, fittings and things, partially observed: the toy for world models and
agents.

    python -m envs.house --level 2 --seed 3          # play it in the terminal

In the manner of ALFWorld's text games (arXiv 2010.03768), but drawn at random and without a
dependency. The player sees the room it is in, the top of its surface and the inside of what is
open; what stands elsewhere it has to remember. Rooms stand in a ring, each with a door to the
next. The hands hold one thing at a time. Level 1 to 4 sets the size.

Six families of tasks: put, clean, heat, cool (do it, then put the thing somewhere), examine in
light (hold it where the lamp is lit), put two.

text.py has the words, both texts and the parser; player.py plays the demonstrations.
"""
import copy
import random

from envs import FactWorld, Step, split_of
from envs.house import text as language
from envs.house.player import HABITS, next_action
from envs.house.text import (COMMANDS, DEVICES, HOLDERS, KIND_OF, KINDS, NOTHING, OPENABLE, RESULT,
                             ROOM_OF, ROOMS, STYLES, SUITS, SURFACES, WORDS, door, render, say)

LEVELS = {1: (2, 3, 20), 2: (3, 4, 30), 3: (4, 5, 40), 4: (6, 8, 60)}  # -> rooms, things, turns
FAMILIES = ("put", "clean", "heat", "cool", "examine", "two")
NEEDS = {  # family -> a room it cannot do without
    "clean": "bath", "heat": "pantry", "cool": "kitchen", "examine": "study"}


class House(FactWorld):
    problems = 512
    targets = {"senior": 0.5, "expert": 0.5, "oracle": 0.5}  # senior is another name for expert
    words = WORDS
    language = language
    max_state = 80  # tokens of a state with all that can be known at level 3

    def __init__(self, level=2, style="terse", turns=0):
        self.level, self.style = level, style
        self.n_rooms, self.n_things, most = LEVELS[level]
        self.max_turns = turns or most
        self.max_new = 5 if style == "terse" else 14  # tokens of a command
        self.max_observation = 10 if style == "terse" else 48  # tokens
        self.context = 24 + (14 if style == "terse" else 60) * self.max_turns

    def tasks(self, split):
        return None

    def reset(self, task, split):
        rng = random.Random(f"house {self.level} {task}")
        while True:  # the first house drawn that belongs to the split
            self.build(rng)
            text = f"{self.goal_text('plain')} {render(self.visible(), 'plain')}"
            if split_of(text) == split:
                return f"{self.goal_text(self.style)} {self.observation()}"

    def build(self, rng):
        """Draw a house and a task that can be solved in it."""
        self.family = rng.choice(FAMILIES)
        needed = [NEEDS[self.family]] if self.family in NEEDS else []
        others = [room for room in ROOMS if room not in needed]
        self.rooms = needed + rng.sample(others, self.n_rooms - len(needed))
        rng.shuffle(self.rooms)
        self.doors = {door(a, b) for a, b in zip(self.rooms, self.rooms[1:] + self.rooms[:1])}
        self.exits = {
            room: sorted({b if a == room else a for _, a, b in self.doors if room in (a, b)})
            for room in self.rooms}
        suits = [t for t, kind in KIND_OF.items() if kind in SUITS.get(self.family, KINDS)]
        self.goal_things = rng.sample(suits, 2 if self.family == "two" else 1)
        others = [t for t in KIND_OF if t not in self.goal_things]
        things = self.goal_things + rng.sample(others, self.n_things - len(self.goal_things))
        places = [place for room in self.rooms for place in ROOMS[room] if place in HOLDERS]
        if self.family == "examine":
            self.target = None
        else:
            self.target = rng.choice([
                p for p in places if p != DEVICES.get(self.family)
                and (p in SURFACES or self.family != "two")])
        self.where = {}  # thing -> place, or "hand"
        for thing in rng.sample(things, len(things)):
            free = [p for p in places if p != self.target and self.room_in(p)]
            usual = [p for p in free if p in KINDS[KIND_OF[thing]][1]]
            self.where[thing] = rng.choice(usual if usual and rng.random() < 0.6 else free)
        self.shut = {place: rng.random() < 0.7 for place in places if place in OPENABLE}
        self.marks = set()  # ("clean", thing), ("hot", thing), ("cold", thing)
        self.lit, self.held, self.turn = False, None, 0
        self.at = self.focus = rng.choice(self.rooms)
        # Places whose contents the player has seen. Only the player moves things, so it knows
        # them from then on.
        self.seen = set()
        self.notice()

    def room_in(self, place):
        """Can it hold one thing more?"""
        held = sum(p == place for p in self.where.values())
        return held < (2 if place in SURFACES else 1)

    def goal_text(self, style):
        first, target = self.goal_things[0], self.target
        if self.family == "examine":
            return (f"goal examine {first} lamp" if style == "terse" else
                    f"Your task: look at the {first} in the light of the lamp.")
        if style == "terse":
            verb = "put" if self.family == "two" else self.family
            return " ".join(["goal", verb, *self.goal_things, target])
        what = " and the ".join(self.goal_things)
        done = "" if self.family in ("put", "two") else f"{self.family} the {first} and "
        where = f"{'on' if target in SURFACES else 'in'} the {target}"
        return f"Your task: {done}put {'it' if done else 'the ' + what} {where}."

    # ---- facts ----

    def facts(self):
        facts = {("at", self.at), ("hold", self.held or "nothing"), ("focus", self.focus)}
        facts |= self.doors | self.marks
        facts |= {("in", thing, p) for thing, p in self.where.items() if p != "hand"}
        facts |= {("shut" if shut else "open", place) for place, shut in self.shut.items()}
        if "study" in self.rooms:
            facts.add(("lit" if self.lit else "dark", "lamp"))
        return frozenset(facts)

    def visible(self):
        focus = self.focus
        if focus == "nothing":
            return NOTHING
        if focus == "hands":
            return frozenset({("hold", "nothing")})
        if focus in ROOMS:
            surface, fitting = ROOMS[focus]
            doors = [door(focus, room) for room in self.exits[focus]]
            inside = self.contents(surface) + self.state(fitting)
            return frozenset([("at", focus), *doors, *inside])
        if focus in ROOM_OF:
            return frozenset(self.state(focus))
        place = self.where[focus]
        where = ("hold", focus) if place == "hand" else ("in", focus, place)
        return frozenset([where, *(mark for mark in self.marks if mark[1] == focus)])

    def needed(self):
        """What the observation states, and what it is about."""
        return self.visible() | {("focus", self.focus)}

    def goal(self):
        """What wins: all of these at once."""
        things = self.goal_things
        if self.family == "examine":
            return frozenset({("at", "study"), ("lit", "lamp"), ("hold", things[0])})
        done = {(RESULT[self.family], things[0])} if self.family in RESULT else set()
        return frozenset(done | {("in", thing, self.target) for thing in things})

    def contents(self, place):
        return [("in", thing, p) for thing, p in self.where.items() if p == place]

    def state(self, fitting):
        """What the player sees of a fitting."""
        if fitting == "lamp":
            return [("lit" if self.lit else "dark", "lamp")]
        if self.shut.get(fitting):
            return [("shut", fitting)]
        return ([("open", fitting)] if fitting in OPENABLE else []) + self.contents(fitting)

    def is_open(self, place):
        """Can the player reach into it from here?"""
        return ROOM_OF.get(place) == self.at and not self.shut.get(place)

    def notice(self):
        places = ROOMS[self.focus] if self.focus in ROOMS else [self.focus]
        self.seen.update(p for p in places if p in HOLDERS and not self.shut.get(p))

    # ---- play ----

    def observation(self):
        return render(self.visible(), self.style)

    def commands(self):
        return list(COMMANDS[self.style])

    def actions(self):
        return [say(action, self.style) for action in self.admissible()]

    def admissible(self):
        surface, fitting = ROOMS[self.at]
        within = [p for p in (surface, fitting) if p in HOLDERS and self.is_open(p)]
        found = [("look",), ("inventory",), *(("go", room) for room in self.exits[self.at])]
        if fitting in OPENABLE:
            found.append(("open" if self.shut[fitting] else "close", fitting))
        if fitting == "lamp":
            found.append(("use", "lamp"))
        for thing, place in self.where.items():
            if place == "hand" or place in within:
                found.append(("examine", thing))
                if place != "hand" and self.held is None:
                    found.append(("take", thing, place))
        if self.held:
            found += [("put", self.held, place) for place in within if self.room_in(place)]
            found += [(verb, self.held, device) for verb, device in DEVICES.items()
                      if device == fitting and KIND_OF[self.held] in SUITS[verb]]
        return found

    def step(self, text):
        self.turn += 1
        action = COMMANDS[self.style].get(text)
        if action is None or not self.act(*action):
            self.focus = "nothing"
        won = self.goal() <= self.facts()
        done = won or self.turn >= self.max_turns
        info = {"success": won, "truncated": done and not won, "family": self.family}
        return Step("" if done else self.observation(), float(won), done, info)

    def act(self, verb, what=None, place=None):
        """Do it and return True, or change nothing and return False."""
        here = ROOM_OF.get(place or what) == self.at
        held = self.held is not None and self.held == what
        if verb == "look":
            self.focus = self.at
        elif verb == "inventory":
            self.focus = self.held or "hands"
        elif verb == "go" and what in self.exits[self.at]:
            self.at = self.focus = what
        elif verb in ("open", "close") and here and self.shut[what] == (verb == "open"):
            self.shut[what], self.focus = verb == "close", what
        elif (verb == "take" and self.held is None and self.where.get(what) == place
              and self.is_open(place)):
            self.where[what], self.held, self.focus = "hand", what, what
        elif verb == "put" and held and self.is_open(place) and self.room_in(place):
            self.where[what], self.held, self.focus = place, None, what
        elif verb in DEVICES and held and here and KIND_OF[what] in SUITS[verb]:
            if verb != "clean":
                self.marks -= {("hot", what), ("cold", what)}
            self.marks.add((RESULT[verb], what))
            self.focus = what
        elif verb == "use" and self.at == "study":
            self.lit, self.focus = not self.lit, "lamp"
        elif (verb == "examine" and what in self.where
              and (held or self.is_open(self.where[what]))):
            self.focus = what
        else:
            return False
        self.notice()
        return True

    def plausible(self, facts):
        """What a planner tries: commands about the goal that these facts (a memory, or an imagined
        state) leave open. They may fail: at a full place, or at a device that does not suit."""
        look = say(("look",), self.style)
        here = next((f[1] for f in sorted(facts) if f[0] == "at"), None)
        if here not in ROOMS:
            return [look]
        surface, fitting = ROOMS[here]
        within = [p for p in (surface, fitting) if p in HOLDERS and ("shut", p) not in facts]
        held = next((f[1] for f in sorted(facts) if f[0] == "hold" and f[1] != "nothing"), None)
        doors = [f[1:] for f in sorted(facts) if f[0] == "door" and here in f[1:]]
        found = [("go", b if a == here else a) for a, b in doors]
        if ("shut", fitting) in facts:
            found.append(("open", fitting))
        if fitting == "lamp":
            found.append(("use", "lamp"))
        if held in self.goal_things:
            found += [("put", held, p) for p in within]
            found += [(verb, held, d) for verb, d in DEVICES.items() if d == fitting]
        elif held is None:
            found += [("take", thing, p) for thing in self.goal_things for p in within
                      if ("in", thing, p) in facts]
        return [say(action, self.style) for action in found] or [look]

    def clone(self):
        other = copy.copy(self)
        other.where, other.shut = dict(self.where), dict(self.shut)
        other.marks, other.seen = set(self.marks), set(self.seen)
        return other

    def demo(self, rng, skill):
        """Commands that win from here. "oracle" knows where everything is; "expert" (or "senior")
        has to look for it; "careless" and "restless" are experts with a bad habit each."""
        house, commands = self.clone(), []
        while house.turn < house.max_turns and not house.goal() <= house.facts():
            action = next_action(house, rng, oracle=skill == "oracle")
            if skill in HABITS:
                action = HABITS[skill](house, action, rng)
            commands.append(say(action, house.style))
            house.step(commands[-1])
        return commands


def make(data="", level=2, text="terse", turns=0):
    if data:
        raise ValueError("house builds its own houses; leave out --data, or choose another --env")
    if level not in LEVELS:
        raise ValueError(f"house has levels 1 to {max(LEVELS)}, not {level}")
    if text not in STYLES:
        raise ValueError(f"unknown text {text!r}; one of: {' '.join(STYLES)}")
    return House(level, text, turns)
