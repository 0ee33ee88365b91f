"""The house: its players in any mess, and a game in the terminal."""
import collections
import random
import subprocess
import sys

import pytest

import envs
from conftest import REPO
from envs.house import FAMILIES, LEVELS
from envs.house.player import next_action, restless
from envs.house.text import HOLDERS, OPENABLE, ROOM_OF, ROOMS, STYLES, SURFACES, say
from test_house import SAYS_NO, some_house, by_hand


# ---- the players ----

@pytest.mark.parametrize("level", LEVELS)
def test_both_players_win_every_family_and_knowing_more_is_faster(level):
    turns, families = collections.Counter(), collections.Counter()
    for task in range(300):
        house = some_house(level, STYLES[task % 2], task, envs.SPLITS[task % 3])
        families[house.family] += 1
        for skill in ("expert", "oracle"):
            commands, game = house.demo(random.Random(task), skill), house.clone()
            steps = [game.step(command) for command in commands]
            assert [s.reward for s in steps] == [0.0] * (len(steps) - 1) + [1.0] and steps[-1].done
            assert len(steps) <= house.max_turns
            assert not any(step.observation == SAYS_NO[house.style] for step in steps)
            turns[skill] += len(steps)
        assert house.turn == 0
        assert house.demo(random.Random(task),
                          "senior") == house.demo(random.Random(task), "expert")
    assert families.keys() == set(FAMILIES) and turns["oracle"] < turns["expert"]


def other_world(house, rng):
    """A house that the player cannot tell from this one: what it has not seen yet lies elsewhere,
    and is shut or open otherwise."""
    other = house.clone()
    unseen = [p for room in house.rooms for p in ROOMS[room] if p in HOLDERS
              and p not in house.seen]
    slots = [p for p in unseen for _ in range(2 if p in SURFACES else 1)]
    hidden = [t for t, p in house.where.items() if p in unseen]
    other.where.update(zip(hidden, rng.sample(slots, len(hidden))))
    for place in unseen:
        room = ROOM_OF[place]
        if place in OPENABLE and room != house.at and ROOMS[room][0] not in house.seen:
            other.shut[place] = rng.random() < 0.5
    return other, other.where != house.where


@pytest.mark.parametrize("mess", [0, 0.3])
def test_the_expert_uses_nothing_it_has_not_seen(mess):
    rng, moved, told = random.Random(1), 0, 0
    for task in range(250):
        house = some_house(1 + task % 4, task=task)
        while not house.goal() <= house.facts() and house.turn < house.max_turns:
            for _ in range(3):
                other, differs = other_world(house, rng)
                moved += differs
                assert other.visible() == house.visible()
                here, there = (next_action(h, random.Random(5)) for h in (house, other))
                assert here == there, house.facts()
                here, there = (next_action(h, random.Random(5), True) for h in (house, other))
                told += here != there
            messy = rng.random() < mess
            action = rng.choice(house.admissible()) if messy else next_action(house, rng)
            house.step(say(action, house.style))
    assert moved > 1000 and told > 100  # the oracle does use it: the worlds differ where it matters


def test_a_player_with_full_hands_does_not_know_that_an_unseen_place_is_full():
    """The kitchen is full; the bath next door has room, or not."""
    def start(bath):
        where = {"apple": "counter", "pen": "counter", "mug": "fridge", "book": "hand",
                 "egg": "shelf", **dict(zip(("bread", "soap", "fork"), bath))}
        house = by_hand("put", where, "microwave", ["egg"])
        house.held = "book"
        return house
    assert {next_action(start(bath), random.Random(0))
            for bath in (["stool"], ["stool", "stool", "sink"])} == {("go", "bath")}


def finish(house, rng, oracle, turns):
    """The player alone from here: every command must do something, and within so many turns it
    wins."""
    start = house.facts()
    for _ in range(turns):
        if house.goal() <= house.facts():
            return
        action = next_action(house, rng, oracle)
        assert house.act(*action), (action, house.facts())
    raise AssertionError(f"no end: {house.family} {house.goal()} from {sorted(start)}")


@pytest.mark.parametrize("level", LEVELS)
def test_both_players_win_from_any_mess(level):
    """A while of random moves, mostly of things, and then the player alone."""
    for task in range(400):
        rng, house = random.Random(task), some_house(level, task=task)
        house.max_turns = 10**6
        for _ in range(rng.randrange(60)):
            found = house.admissible()
            moves = [a for a in found if a[0] in ("take", "put", "open", "go")]
            house.act(*rng.choice(moves if rng.random() < 0.8 else found))
        finish(house.clone(), rng, False, 60)
        finish(house.clone(), rng, True, 60)
        for _ in range(2000):  # and with random moves all along
            if house.goal() <= house.facts():
                break
            house.act(*(rng.choice(house.admissible())
                        if rng.random() < 0.3 else next_action(house, rng)))
        assert house.goal() <= house.facts()


@pytest.mark.parametrize("oracle", [False, True])
@pytest.mark.parametrize("at", ["kitchen", "bath", "study", "pantry"])
@pytest.mark.parametrize("family, target, things", [
    ("put", "stool", ["apple"]), ("put", "sink", ["apple"]), ("put", "fridge", ["apple"]),
    ("clean", "microwave", ["apple"]), ("clean", "stool", ["apple"]),
    ("heat", "fridge", ["apple"]), ("cool", "sink", ["apple"]), ("two", "stool", ["apple", "pen"]),
    ("two", "desk", ["pen", "apple"])])
def test_both_players_clear_a_target_that_is_full(family, target, things, at, oracle):
    for shut in ([], ["fridge", "microwave"]):
        for held in (None, "apple", "book"):
            for first in (None, *things):  # one of the things to bring is there already
                fill = [t for t in (first, "mug", "fork") if t][:2 if target in SURFACES else 1]
                where = {"apple": "counter", "pen": "counter", "book": "shelf",
                         **{t: target for t in fill}}
                house = by_hand(family, where, target, things, shut=shut)
                if held and house.where[held] != target:
                    house.where[held], house.held = "hand", held
                house.at = house.focus = at
                house.notice()
                finish(house, random.Random(0), oracle, 40)


# ---- the terminal ----

@pytest.mark.parametrize("said, heard", [
    ("?\nlook\nnonsense\n\n", ["look, inventory, go to", "Nothing happens."]), ("", []), ("\n", []),
    ("look", ["You are in the"]),
    ("look\n" * 40, ["Out of turns."]), (None, ["Solved in"])])
def test_it_is_played_in_the_terminal(said, heard):
    if said is None:
        said = "\n".join(some_house(2, "plain", 3).demo(random.Random(0), "expert"))
    played = subprocess.run([sys.executable, "-m", "envs.house", "--level", "2", "--seed", "3"],
                            cwd=REPO, input=said, capture_output=True, text=True, timeout=60)
    assert played.returncode == 0 and not played.stderr
    assert played.stdout.startswith(some_house(2, "plain", 3).reset(3, "train"))
    assert [text for text in heard if text not in played.stdout] == []


def test_a_restless_player_does_anything_else_one_time_in_three():
    house, rng = envs.make("house"), random.Random(0)
    house.reset(3, "train")
    action = next_action(house, rng)
    found = collections.Counter(restless(house, action, rng) for _ in range(3000))
    assert set(found) == {action, *house.admissible()}
    assert 0.64 < found[action] / 3000 < 0.76  # the action itself is among the others
    assert house.demo(random.Random(0), "restless") != house.demo(random.Random(0), "expert")
