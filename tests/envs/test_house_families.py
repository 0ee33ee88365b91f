"""The house: its six families of tasks by hand, and what sets limits."""
from envs.house.text import parse, render
from test_house import SAYS_NO, by_hand, won_after


def test_put_wins_with_the_thing_in_its_place():
    house = by_hand("put", {"apple": "counter", "egg": "sink"}, "stool", ["apple"])
    assert house.goal_text("plain") == "Your task: put the apple on the stool."
    assert house.goal_text("terse") == "goal put apple stool"
    assert won_after(house, ["take apple from counter", "go to bath", "inventory",
                             "put apple in/on stool"]) == ["put apple in/on stool"]
    house = by_hand("put", {"apple": "counter", "egg": "sink"}, "stool", ["apple"])
    assert not won_after(house, ["go to bath", "take egg from sink", "put egg in/on stool",
                                 "go to kitchen", "take apple from counter", "go to bath",
                                 "put apple in/on sink"])


def test_clean_wants_the_mark_and_the_place():
    house = by_hand("clean", {"apple": "counter"}, "stool", ["apple"])
    assert house.goal() == {("clean", "apple"), ("in", "apple", "stool")}
    assert house.goal_text("plain") == "Your task: clean the apple and put it on the stool."
    assert house.goal_text("terse") == "goal clean apple stool"
    assert won_after(house, ["take apple from counter", "go to bath", "put apple in/on stool",
                             "take apple from stool", "clean apple with sink",
                             "put apple in/on sink", "take apple from sink",
                             "put apple in/on stool"]) == ["put apple in/on stool"]
    assert house.turn == 8
    assert parse(render(house.visible())) == {("in", "apple", "stool"), ("clean", "apple")}


def test_heat_then_cool_leaves_it_cold_and_clean_stays():
    house = by_hand("heat", {"apple": "counter"}, "counter", ["apple"])
    fetch = ["take apple from counter", "go to bath", "clean apple with sink", "go to study",
             "go to pantry", "heat apple with microwave", "go to kitchen"]
    assert not won_after(house, fetch) and house.marks == {("clean", "apple"), ("hot", "apple")}
    assert not won_after(house, ["cool apple with fridge", "put apple in/on counter"])
    assert house.marks == {("clean", "apple"), ("cold", "apple")}
    assert won_after(house, ["take apple from counter", "go to pantry", "heat apple with microwave",
                             "go to kitchen", "put apple in/on counter"]) == \
        ["put apple in/on counter"]
    house = by_hand("cool", {"mug": "counter"}, "drawer", ["mug"], rooms=("kitchen", "bedroom"),
                    shut=["fridge", "drawer"])
    assert house.goal() == {("cold", "mug"), ("in", "mug", "drawer")}
    assert house.goal_text("plain") == "Your task: cool the mug and put it in the drawer."
    assert won_after(house, ["take mug from counter", "cool mug with fridge", "go to bedroom",
                             "open drawer", "put mug in/on drawer"]) == ["put mug in/on drawer"]


def test_examine_wants_the_lamp_lit_and_the_thing_in_the_hand_there():
    def start(**options):
        return by_hand("examine", {"pen": "counter", "egg": "stool"}, None, ["pen"],
                       rooms=("kitchen", "study", "bath"), **options)
    house = start()
    assert house.goal() == {("at", "study"), ("lit", "lamp"), ("hold", "pen")}
    assert house.goal_text("plain") == "Your task: look at the pen in the light of the lamp."
    assert house.goal_text("terse") == "goal examine pen lamp"
    # The lamp was lit already.
    assert won_after(house, ["go to study", "use lamp", "go to kitchen", "take pen from counter",
                             "go to study"]) == ["go to study"]
    assert won_after(start(), ["take pen from counter", "go to study", "use lamp"]) == ["use lamp"]
    house = start()
    assert not won_after(house, ["take pen from counter", "go to study", "put pen in/on desk",
                                 "use lamp", "examine pen", "use lamp"])
    assert won_after(house, ["take pen from desk", "use lamp"]) == ["use lamp"]
    # That is another thing.
    assert not won_after(start(), ["go to bath", "take egg from stool", "go to study", "use lamp"])


def test_two_wants_both_at_once():
    house = by_hand("two", {"pen": "counter", "egg": "counter"}, "stool", ["pen", "egg"])
    assert house.goal_text("plain") == "Your task: put the pen and the egg on the stool."
    assert house.goal_text("terse") == "goal put pen egg stool"
    assert won_after(house, ["take pen from counter", "go to bath", "put pen in/on stool",
                             "go to kitchen", "take egg from counter", "go to bath",
                             "put egg in/on sink", "take egg from sink",
                             "put egg in/on stool"]) == ["put egg in/on stool"]


def test_hands_places_and_kinds_set_limits():
    house = by_hand("put", {"pen": "counter", "egg": "counter", "mug": "sink", "book": "stool",
                            "soap": "stool"}, "desk", ["pen"], shut=["fridge"])
    said = [house.step(text).observation == SAYS_NO["plain"] for text in (
        "take pen from counter", "take egg from counter", "put pen in/on fridge", "open fridge",
        "put pen in/on fridge", "take egg from counter",
        "put egg in/on fridge", "cool egg with fridge", "go to bath", "put egg in/on stool",
        "put egg in/on sink", "clean egg with sink", "heat egg with microwave")]
    assert said == [False, True, True, False, False, False, True, False, False, True, True, False,
                    True]
    house = by_hand("put", {"pen": "counter"}, "desk", ["pen"])
    house.step("take pen from counter")
    # A pen is of the kind "paper", which is not cooled.
    assert house.step("cool pen with fridge").observation == SAYS_NO["plain"] and not house.marks
