"""The house: its texts read back, its rules by hand, its invariants under any play."""
import collections
import hashlib
import random

import pytest

import envs
from contract import NASTY, check_env
from envs.house import FAMILIES, LEVELS
from envs.house.player import next_action
from envs.house.text import (ACTIONS, COMMANDS, DEVICES, HOLDERS, KIND_OF, MAX_WORDS, NOTHING,
                             OPENABLE, PREDICATES, PROPERTIES, ROOM_OF,
                             ROOMS, STYLES, SURFACES, TEMPLATES, door, parse, render, say)

SAYS_NO = {"terse": "nothing happens here", "plain": "Nothing happens."}
# All words of the terse text.
TERSE = set(" ".join([*COMMANDS["terse"], SAYS_NO["terse"],
                      "goal you hold nothing held in is open shut lit dark", *PROPERTIES]).split())


def some_house(level=2, style="terse", task=0, split="train"):
    house = envs.make("house", level=level, text=style)
    house.reset(task, split)
    return house


def some_command(house, rng):
    """Mixed play: mostly what would do something, some of anything, garbage, and sensible play."""
    dice = rng.random()
    if dice < 0.5:
        return rng.choice(house.actions())
    if dice < 0.7:
        return rng.choice(list(COMMANDS[house.style]))
    return "garbage" if dice < 0.72 else say(next_action(house, rng, oracle=dice < 0.8),
                                             house.style)


def wander(level, style, steps, seed=0):
    """States along mixed play: `steps` of them, over as many houses as it takes."""
    rng, house = random.Random(seed), some_house(level, style, seed)
    for step in range(steps):
        yield house
        if house.step(some_command(house, rng)).done:
            yield house  # the last state is one to look at too
            house.reset(f"{seed} {step}", "train")


def without_focus(facts):
    return {fact for fact in facts if fact[0] != "focus"}


def by_hand(family, where, target, things, rooms=("kitchen", "bath", "study", "pantry"), shut=(),
            style="plain"):
    """A house to a drawing, the player in its first room."""
    house = some_house(4, style)
    house.family, house.rooms = family, list(rooms)
    house.target, house.goal_things = target, list(things)
    ring = list(zip(rooms, rooms[1:] + rooms[:1]))
    house.doors = {door(a, b) for a, b in ring}
    house.exits = {room: sorted({a if b == room else b for a, b in ring if room in (a, b)})
                   for room in rooms}
    house.where, house.shut = dict(where), {p: p in shut for room in rooms
                                            for p in ROOMS[room] if p in OPENABLE}
    house.marks, house.seen, house.lit, house.held, house.turn = set(), set(), False, None, 0
    house.at = house.focus = rooms[0]
    house.notice()
    return house


def won_after(house, commands):
    """Play them all, each must be understood; -> which of them won."""
    steps = [house.step(command) for command in commands]
    assert not [c for c, step in zip(commands, steps) if step.observation == SAYS_NO[house.style]]
    assert [step.reward for step in steps] == [float(step.info["success"]) for step in steps]
    return [c for c, step in zip(commands, steps) if step.reward]


# ---- the contract ----

@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("text", STYLES)
def test_house_keeps_the_contract(level, text):
    check_env("house", level=level, text=text)


@pytest.mark.parametrize("options", [{"data": "x"}, {"level": 0}, {"level": 5}, {"text": "verse"}])
def test_wrong_options_are_named_in_one_line(options):
    with pytest.raises(ValueError) as error:
        envs.make("house", **options)
    assert "\n" not in str(error.value)


def test_the_same_seed_is_the_same_house_on_every_machine():
    houses = [envs.make("house", level=level, text=style) for level in LEVELS for style in STYLES]
    texts = [house.reset(task, split) for house in houses for split in envs.SPLITS
             for task in range(50 if split == "train" else 10)]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == "8c93e1118754c2e8"
    demos = [" ".join(some_house(2, "terse", task).demo(random.Random(task), skill))
             for skill in ("expert", "oracle") for task in range(50)]
    assert hashlib.sha256("\n".join(demos).encode()).hexdigest()[:16] == "82bba696fa262d28"


# ---- texts and parser ----

@pytest.mark.parametrize("level", LEVELS)
def test_parse_gives_back_the_facts_of_25000_observations_in_both_texts(level):
    seen = 0
    for i, style in enumerate(STYLES):
        for house in wander(level, style, 6250, seed=i):
            facts = house.visible()
            for text in STYLES:
                assert parse(render(facts, text)) == facts, render(facts, text)
                seen += 1
    assert seen >= 25_000


def test_parse_reads_these_texts_by_hand():
    kitchen = {("at", "kitchen"), door("bath", "kitchen"), door("kitchen", "hall"),
               ("in", "apple", "counter"), ("in", "egg", "counter")}
    for facts, plain, terse in [
        (kitchen | {("shut", "fridge")},
         "You are in the kitchen. Doors lead to the bath and the hall. "
         "On the counter, you see an apple and an egg. The fridge is closed.",
         "kitchen bath hall counter apple egg fridge shut"),
        (kitchen - {("in", "egg", "counter")} | {("open", "fridge"), ("in", "mug", "fridge")},
         "You are in the kitchen. Doors lead to the bath and the hall. "
         "On the counter, you see an apple. The fridge is open. In it, you see a mug.",
         "kitchen bath hall counter apple fridge mug"),
        ({("at", "study"), door("bath", "study"), ("dark", "lamp")},
         "You are in the study. A door leads to the bath. On the desk, you see nothing. "
         "The lamp is dark.", "study bath desk lamp dark"),
        ({("at", "bath"), door("bath", "study"), ("in", "soap", "sink")},
         "You are in the bath. A door leads to the study. On the stool, you see nothing. "
         "In the sink, you see a soap.", "bath study stool sink soap"),
        ({("hold", "apple"), ("clean", "apple"), ("hot", "apple")},
         "The apple is in your hand. It is clean and hot.", "apple is held clean hot"),
        ({("in", "pen", "bed")}, "The pen is on the bed.", "pen in bed"),
        ({("in", "egg", "fridge"), ("cold", "egg")}, "The egg is in the fridge. It is cold.",
         "egg in fridge cold"),
        ({("open", "chest"), ("in", "pen", "chest")}, "The chest is open. In it, you see a pen.",
         "chest is open pen"),
        ({("shut", "crate")}, "The crate is closed.", "crate is shut"),
        ({("lit", "lamp")}, "The lamp is lit.", "lamp is lit"),
        ({("hold", "nothing")}, "You carry nothing.", "you hold nothing"),
        (NOTHING, SAYS_NO["plain"], SAYS_NO["terse"])]:
        facts = frozenset(facts)
        assert (render(facts, "plain"), render(facts, "terse")) == (plain, terse)
        for text in (plain, terse, plain.upper(), f"  {terse}\n"):
            assert parse(text) == facts


def test_the_parser_reads_anything_and_gives_well_formed_facts():
    rng, vocabulary = random.Random(0), sorted(TERSE | set(" ".join(COMMANDS["plain"]).split()) | {
        "You", "are", "The", "closed.", "door", "leads", "Doors", "lead", "In", "it,", "you", "see",
        "hand.", "carry", "Nothing", "happens.", "9", "\n", ",", "٣"})
    salads = [" ".join(rng.choices(vocabulary, k=rng.randrange(12))) for _ in range(8000)]
    halves = [(t := render(h.visible(), "plain"))[:rng.randrange(len(t) + 1)]
              for h in wander(3, "plain", 2000)]
    made = collections.Counter()
    for text in [*NASTY, *salads, *halves, *(a + b for a, b in zip(NASTY, salads)),
                 " ".join(vocabulary) * 50]:
        facts = parse(text)
        assert isinstance(facts, frozenset)
        for predicate, *arguments in facts:
            assert len(arguments) == PREDICATES[predicate], (text, predicate, arguments)
            assert all(0 < len(argument.split()) <= MAX_WORDS for argument in arguments)
            made[predicate] += 1
    assert made.keys() == PREDICATES.keys()  # so each was looked at


def test_terse_texts_are_short_and_of_a_closed_vocabulary():
    lengths = set()
    for level in LEVELS:
        for house in wander(level, "terse", 2000):
            words = render(house.visible(), "terse").split(" ")
            lengths.add(len(words))
            assert set(words) <= TERSE
        for task in range(200):
            house.reset(task, "train")
            assert set(house.goal_text("terse").split(" ")) <= TERSE
            assert house.goal_text("terse").startswith("goal ")
    assert lengths == set(range(3, 9))
    assert {len(command.split(" ")) for command in COMMANDS["terse"]} == {2, 3} and len(TERSE) < 100
    # No two actions are said alike.
    assert all(len(COMMANDS[style]) == len(ACTIONS) for style in STYLES)


@pytest.mark.parametrize("level", LEVELS)
def test_both_texts_are_of_one_house(level):
    rng = random.Random(level)
    for split in envs.SPLITS:
        for task in range(15):
            one, two = (some_house(level, style, task, split) for style in STYLES)
            assert two.reset(task,
                             split) == f"{two.goal_text('plain')} {render(one.visible(), 'plain')}"
            for _ in range(one.max_turns):
                assert (one.facts(), one.goal(), one.visible(), one.needed(),
                        one.family) == (two.facts(), two.goal(), two.visible(), two.needed(),
                                        two.family)
                action = rng.choice(one.admissible() if rng.random() < 0.8 else ACTIONS)
                assert one.admissible() == two.admissible()
                steps = [house.step(say(action, house.style)) for house in (one, two)]
                assert (steps[0].reward, steps[0].done,
                        steps[0].info) == (steps[1].reward, steps[1].done, steps[1].info)
                if steps[0].done:
                    break
                assert [parse(step.observation) for step in steps] == [one.visible(), two.visible()]


# ---- commands ----

@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("style", STYLES)
def test_a_command_does_something_exactly_when_it_is_admissible(level, style):
    tried = collections.Counter()
    for i, house in enumerate(wander(level, style, 350)):
        if i % 9:
            continue
        admissible, before = house.admissible(), house.facts()
        assert len(set(admissible)) == len(admissible)
        assert house.actions() == [say(a, style) for a in admissible]
        for text, action in COMMANDS[style].items():
            other = house.clone()
            understood = other.act(*action)
            assert understood == (action in admissible), (text, before)
            if not understood:
                assert (other.facts(), other.seen, other.lit) == (before, house.seen, house.lit)
            other.turn = -1
            step = other.step(text) if not understood else house.clone().step(text)
            assert step.done or (step.observation == SAYS_NO[style]) == (not understood), text
            if not understood:
                assert without_focus(other.facts()) == without_focus(before)
                assert other.focus == "nothing"
            tried[action[0], understood] += 1
        assert house.facts() == before  # a clone is another house
    assert {verb for verb, understood in tried
            if understood} == {verb for verb, understood in tried
                               if not understood} | {"look", "inventory"} == set(TEMPLATES)


@pytest.mark.parametrize("style", STYLES)
def test_garbage_changes_nothing(style):
    for level in LEVELS:
        house = some_house(level, style)
        before, house.max_turns = without_focus(house.facts()), 10**6
        other = STYLES[1 - STYLES.index(style)]
        for text in [*NASTY, *(t for t in COMMANDS[other] if t not in COMMANDS[style]),
                     *(f" {t}" for t in COMMANDS[style])]:
            assert house.step(text).observation == SAYS_NO[style], text
            assert without_focus(house.facts()) == before


# ---- what always holds ----

@pytest.mark.parametrize("level", LEVELS)
def test_what_holds_in_every_state(level):
    n_rooms, n_things, _ = LEVELS[level]
    for house in wander(level, "terse", 4000, seed=9):
        facts = house.facts()
        held = [f[1] for f in facts if f[0] == "hold"]
        inside = [f[1:] for f in facts if f[0] == "in"]
        count = collections.Counter(place for _, place in inside)
        assert all(n <= (2 if place in SURFACES else 1) for place, n in count.items())
        assert count.keys() <= HOLDERS
        assert all(ROOM_OF[place] in house.rooms for place in count)
        assert held == [house.held or "nothing"]
        assert [t for t, p in house.where.items()
                if p == "hand"] == ([house.held] if house.held else [])
        things = [thing for thing, _ in inside] + [house.held] * bool(house.held)
        assert len(things) == len(set(things)) == n_things and set(things) <= set(KIND_OF)
        assert all(("shut", p) in facts or ("open", p) in facts for room in house.rooms
                   for p in ROOMS[room] if p in OPENABLE)
        assert not [p for p in OPENABLE if {("shut", p), ("open", p)} <= facts]
        assert not [t for t in KIND_OF if {("hot", t), ("cold", t)} <= facts]
        assert len(set(house.rooms)) == n_rooms
        assert ("study" in house.rooms) == bool({("lit", "lamp"), ("dark", "lamp")} & facts)
        visible = house.visible()
        assert without_focus(visible) <= facts
        assert house.needed() == visible | {("focus", house.focus)}
        assert ("focus", house.focus) in facts
        shown = {f[2] for f in visible if f[0] == "in"}
        assert not [p for p in shown if house.shut.get(p)]
        assert all(ROOM_OF[p] == house.at for p in shown)
        assert not {("open", p) for p in OPENABLE if house.shut.get(p)} & visible
        assert not [f for f in facts if f[0] in PREDICATES and len(f) != PREDICATES[f[0]] + 1]
        assert {f[0] for f in facts} <= PREDICATES.keys()
        assert house.goal() and (house.target is None) == (house.family == "examine")


@pytest.mark.parametrize("level", LEVELS)
def test_the_ring_of_rooms_and_the_task_drawn(level):
    families = collections.Counter()
    for task in range(300):
        house = some_house(level, task=task)
        families[house.family] += 1
        assert all(len(exits) == min(2, len(house.rooms) - 1)
                   and all(room in house.exits[other] for other in exits)
                   for room, exits in house.exits.items())
        # So that actions() stand in one order on every machine.
        assert all(exits == sorted(exits) for exits in house.exits.values())
        assert not house.goal() <= house.facts() and not house.marks and not house.lit
        assert not house.held
        assert house.target not in house.where.values()  # nothing stands there yet
        kinds = {KIND_OF[t] for t in house.goal_things}
        assert house.family not in ("heat", "cool") or kinds <= {"food", "dish"}
        assert house.family != "clean" or not kinds & {"paper"}
        if house.family in DEVICES:
            assert ROOM_OF[DEVICES[house.family]] in house.rooms
            assert house.target != DEVICES[house.family]
    assert families.keys() == set(FAMILIES) and min(families.values()) > 25


def test_only_a_look_inside_or_a_visit_shows_a_place():
    house = by_hand("put", {"apple": "fridge", "pen": "desk", "mug": "counter"}, "stool", ["apple"],
                    shut=["fridge"])
    assert house.visible() == {("at", "kitchen"), door("bath", "kitchen"),
                               door("kitchen", "pantry"), ("in", "mug", "counter"),
                               ("shut", "fridge")}
    assert house.seen == {"counter"}
    for text in ("examine apple", "take apple from fridge"):
        assert house.step(text).observation == SAYS_NO["plain"]
    assert house.step("open fridge").observation == "The fridge is open. In it, you see an apple."
    assert house.seen == {"counter", "fridge"}
    assert house.step("close fridge").observation == "The fridge is closed."
    assert house.seen == {"counter", "fridge"}
    assert house.step("go to study").observation == SAYS_NO["plain"]  # not next door
    house.step("go to bath")
    assert house.seen == {"counter", "fridge", "stool", "sink"} and house.at == "bath"
