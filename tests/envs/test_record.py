"""The games that a world model learns from, the states it imitates, and games of a slow world: they
are played once, written as they end, read back as they were, and cut into examples."""
import copy
import random
from collections import Counter

import pytest

import envs
from envs import record
from envs.record import Moment
from houses import EGG, FOUND, HOLD, some_examples

# ---- examples, and states to imitate ----

def test_the_same_name_and_task_is_the_same_example():
    once = some_examples(12)
    backwards = dict(reversed(FOUND.items())), range(11, -1, -1)
    again = list(reversed(record.examples(*backwards, "train", "test")))
    assert once == again and once != some_examples(12, "other")
    assert len({e.past[0].text for e in once}) > 6
    assert {e.level for e in some_examples(60)} == {1, 2, 3}
    lengths = Counter(len(e.past) for e in some_examples(120))
    assert set(lengths) == set(range(1, 14))  # histories of one observation among them
    assert all(len(e.future) == 1 for e in once)
    assert all(len(e.past) == 3 and len(e.future) == 4
               for e in some_examples(20, past=(2, 2), future=4))


def test_an_examples_future_is_what_the_game_does():
    for task, e in enumerate(some_examples(30, future=5)):
        env = copy.copy(FOUND[e.level])
        env.max_turns = 100
        env.reset(task, "train")
        for i, m in enumerate(e.past + e.future):
            if i:
                env.step(m.action)
            assert (m.text, m.stated, m.needed,
                    m.facts) == (env.observation(), env.visible(), env.needed(), env.facts())


def test_all_four_behaviours_play_and_differ(monkeypatch):
    played, play = Counter(), record.trajectory
    monkeypatch.setattr(record, "trajectory", lambda env, task, split, behaviour,
                        *a: played.update([behaviour]) or play(env, task, split, behaviour, *a))
    some_examples(80)
    assert set(played) == set(record.BEHAVIOURS) and min(played.values()) >= 8
    monkeypatch.undo()
    solved = Counter()
    for behaviour in record.BEHAVIOURS:
        for task in range(30):
            moments = record.trajectory(FOUND[2], task, "train", behaviour, random.Random(task), 30)
            assert len(moments) == 31
            FOUND[2].reset(task, "train")
            solved[behaviour] += any(FOUND[2].goal() <= m.facts for m in moments)
    assert solved["expert"] == 30 > solved["random"] and solved["explore-then-oracle"] == 30
    assert solved["eps-greedy"] > solved["random"]


def test_no_house_is_in_two_splits():
    def houses(split):
        found = set()
        for level, env in FOUND.items():
            for task in range(150):
                env.reset(task, split)
                found.add((level, env.goal_text("plain"), env.observation()))
        return found
    train, valid, test = map(houses, envs.SPLITS)
    assert not train & valid and not train & test and not valid & test


def test_known_is_what_is_true_now_and_was_seen_by_hand():
    hall, bath, fridge = ("at", "hall"), ("at", "bath"), ("open", "fridge")
    unseen, mug = ("in", "soap", "sink"), ("in", "mug", "table")
    moments = [Moment("", "", frozenset({hall, EGG, mug}), frozenset({hall}),
                      frozenset({hall, EGG, mug, unseen, HOLD})),
               Moment("take egg fridge", "", frozenset({("hold", "egg")}),
                      frozenset({("hold", "egg"), ("focus", "egg")}),
                      frozenset({hall, mug, unseen, ("hold", "egg"), ("focus", "egg")})),
               Moment("go bath", "", frozenset({bath}), frozenset({bath, ("focus", "bath")}),
                      frozenset({bath, mug, unseen, ("hold", "egg"), ("focus", "bath"),
                                 ("clean", "egg"), fridge}))]
    # EGG is no longer true, the soap was never seen; ("clean", "egg") came about meanwhile
    assert record.known(moments) == {bath, mug, ("hold", "egg"), ("focus", "bath"),
                                     ("clean", "egg"), fridge}
    assert record.known(moments[:1]) == {hall, EGG, mug}


def test_known_facts_are_true_and_were_seen():
    unknown = 0
    for e in some_examples(60):
        known, now = record.known(e.past), e.past[-1]
        assert now.needed <= known and known - now.needed <= now.facts
        seen = set().union(*(m.stated for m in e.past),
                           *(b.facts - a.facts for a, b in zip(e.past, e.past[1:])))
        assert known <= seen | now.needed and now.facts & seen <= known
        unknown += len(now.facts - known)
    assert unknown > 60


def test_states_to_imitate_are_as_partial_and_as_wrong_as_asked():
    def others(e):
        return sorted(f for x in some_examples(8, "others") for f in x.past[-1].facts)
    dropped = wrong = news_seen = news_all = 0
    for i, e in enumerate(some_examples(120)):
        now, after, rng = e.past[-1], e.future[0], random.Random(i)
        state, following = record.demonstrated_states(e, others(e), rng, 4, 1, 1, 0)
        assert state == record.known(e.past[-4:])
        stays = {f for f in state if f in after.facts and f[0] != "focus"}
        news = (after.facts - now.facts) | after.needed
        assert stays - news <= following <= stays | news
        assert {f for f in after.needed if f[0] == "focus"} <= following
        assert not following & (now.facts - after.facts)
        news_seen += len(after.needed & following)
        news_all += len(after.needed)
        partial, _ = record.demonstrated_states(e, others(e), rng, 4, keep=0.5, carry=1, wrong=0)
        assert partial <= state and {f for f in now.needed if f[0] == "focus"} <= partial
        dropped += len(state) - len(partial)
        lies, _ = record.demonstrated_states(e, others(e), rng, 4, keep=1, carry=1, wrong=0.5)
        assert {f[0] for f in lies} <= {f[0] for f in state}
        wrong += len(lies - state)
    assert 0.9 < news_seen / news_all < 1 and dropped > 120 and wrong > 120
    least, _ = record.demonstrated_states(e, [], random.Random(0), 4, 0, 0, 0)
    assert least == {f for f in now.needed if f[0] == "focus"}


# ---- recorded games ----

class Corridor(envs.FactWorld):
    """Rooms 0 to 5 in a row; who comes to the last one has won. Its oracle does not know the way
    back."""
    record_turns = max_turns = 8
    played = 0

    def tasks(self, split):
        return 4

    def record_tasks(self, split):
        return [0, 2] if split == "train" else [1]

    def reset(self, task, split):
        Corridor.played += 1
        self.room, self.turn, self.start = task % 2, 0, task % 2
        return self.observation()

    def step(self, text):
        self.turn += 1
        self.room = max(0, self.room + {"go on": 1, "go back": -1, "wait": 0}[text])
        won = self.room == 5
        return envs.Step("", float(won), won or self.turn == self.max_turns,
                         {"success": won, "truncated": not won and self.turn == self.max_turns})

    def observation(self):
        return f"room {self.room}"

    def facts(self):
        return frozenset({("at", str(self.room)), ("wall", "0")})

    visible = needed = lambda self: frozenset({("at", str(self.room))})
    actions = commands = lambda self: ["go back", "go on", "wait"]

    def demo(self, rng, skill):
        return ["go on"] * (5 - self.room) if self.turn == 0 else None


def test_a_recorded_game_follows_its_behaviour():
    (start, *on) = record.play(Corridor(), 0, "train", "expert", random.Random(0), 8)
    assert (start.action, start.text) == ("", "room 0")
    # The end, room 5, is left out.
    assert [m.text for m in on] == ["room 1", "room 2", "room 3", "room 4"]
    assert start.stated == {("at", "0")} and start.facts == {("at", "0"), ("wall", "0")}
    games = {b: [record.play(Corridor(), 0, "train", b, random.Random(i), 12) for i in range(40)]
             for b in record.BEHAVIOURS}
    assert all(len(g) == 5 for g in games["expert"])
    assert len({len(g) for g in games["eps-greedy"]}) > 2
    oracle = games["explore-then-oracle"]
    # A walk too far back is not made good by the plan, and is left out.
    assert [] in oracle and any(oracle)
    for game in filter(None, oracle):
        assert game[-1].text == "room 4"
    assert any("wait" in {m.action for m in g} for g in games["random"])


def test_what_was_recorded_is_read_back_and_not_played_again(tmp_path):
    first = record.record(Corridor(), "corridor", 1, tmp_path)
    (path,) = tmp_path.iterdir()
    whole, played = path.read_bytes(), Corridor.played
    # One game more is begun: its text is a part of the file's name.
    assert record.record(Corridor(), "corridor", 1, tmp_path) == first
    assert Corridor.played == played + 1
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:-9])  # killed while it wrote
    assert record.record(Corridor(), "corridor", 1, tmp_path) == first
    assert path.read_bytes() == whole
    for bad in (b"\n", b"{}\n", b"[1, 2]\n", b"\xff\xfe\n", lines[4][:-20] + b"\n", b"[" * 9000 + b"\n"):
        path.write_bytes(b"".join(lines[:4]) + bad + b"".join(lines[5:]))
        played = Corridor.played
        assert record.record(Corridor(), "corridor", 1, tmp_path) == first
        assert Corridor.played == played + 2  # that game alone, and the one that names the file
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert {split: len({id(m) for m in games})
            for split, games in first.items()}.keys() == {"train", "valid", "test"}


def test_examples_are_cut_from_recorded_games():
    env = Corridor()
    env.records = {"train": [("random", [Moment("", str(i), frozenset(), frozenset(), frozenset())
                                         for i in range(n)]) for n in (3, 9, 20)]}
    for e in record.examples({1: env}, range(50), "train", "x", future=6, past=(2, 4)):
        texts = [m.text for m in e.past + e.future]
        assert texts == [str(i) for i in range(len(texts))] and 3 <= len(e.past) <= 5
        assert len(e.future) == 6
    with pytest.raises(ValueError, match="no recorded game has 30 turns"):
        record.examples({1: env}, range(1), "train", "x", future=20, past=(10, 10))
