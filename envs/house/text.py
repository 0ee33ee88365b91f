"""The words of the house: what stands where, the commands, and two texts of one observation with
their parser.

    plain   You are in the kitchen. Doors lead to the bath and the hall. On the counter, you see an
            apple. The fridge is closed.
    terse   kitchen bath hall counter apple fridge shut

A fact is a tuple (predicate, argument, ...): ("in", "apple", "counter"). An observation states some
facts, and says no more than they do: parse(render(facts)) == facts, for both texts. The parser
reads any text and never raises: it is also what scores a world model's predictions, so a half-right
text states some right facts.
"""
import re

ROOMS = {  # room -> its surface, which holds two things, and its fitting, which holds one
    "kitchen": ("counter", "fridge"), "pantry": ("shelf", "microwave"), "bath": ("stool", "sink"),
    "study": ("desk", "lamp"), "bedroom": ("bed", "drawer"), "hall": ("bench", "cabinet"),
    "lounge": ("table", "chest"), "cellar": ("rack", "crate")}
ROOM_OF = {place: room for room, places in ROOMS.items() for place in places}
SURFACES = {surface for surface, _ in ROOMS.values()}
OPENABLE = {"fridge", "microwave", "drawer", "cabinet", "chest", "crate"}
HOLDERS = set(ROOM_OF) - {"lamp"}
KINDS = {  # kind -> its things, and where they usually stand
    "food": (("apple", "bread", "egg", "potato", "tomato"), ("fridge", "counter", "shelf")),
    "dish": (("bowl", "fork", "mug", "plate"), ("counter", "table", "sink")),
    "cloth": (("soap", "towel"), ("stool", "drawer", "bed")),
    "paper": (("book", "letter", "pen"), ("desk", "cabinet", "bed"))}
KIND_OF = {thing: kind for kind, (things, _) in KINDS.items() for thing in things}
DEVICES = {"clean": "sink", "heat": "microwave", "cool": "fridge"}  # verb -> what it is done with
RESULT = {"clean": "clean", "heat": "hot", "cool": "cold"}
SUITS = {  # verb -> kinds of things it can be done to
    "clean": {"food", "dish", "cloth"}, "heat": {"food", "dish"}, "cool": {"food", "dish"}}

PREDICATES = {  # predicate -> the number of its arguments
    "at": 1, "door": 2, "in": 2, "hold": 1, "open": 1, "shut": 1, "clean": 1, "hot": 1, "cold": 1,
    "lit": 1, "dark": 1,
    # What the next observation is about: a room, a thing, a fitting, or the hands; nothing after a
    # command that failed.
    "focus": 1}
MAX_WORDS = 1  # words an argument may have
FACTS_NEEDED = ()  # the tables are not divided by the facts that an observation needs
NOTHING = frozenset({("focus", "nothing")})
PROPERTIES = ("clean", "hot", "cold")

# All words of commands, terse observations and states: each is a token.
WORDS = sorted({
    *ROOMS, *ROOM_OF, *KIND_OF, *PROPERTIES, *DEVICES,
    *("goal look around check inventory nothing happens here you hold is held in put take go open "
      "close use examine shut lit dark at door focus hands").split()})

# ---- commands ----

TEMPLATES = {  # verb -> terse, plain
    "go": ("go {}", "go to {}"), "open": ("open {}", "open {}"), "close": ("close {}", "close {}"),
    "take": ("take {} {}", "take {} from {}"), "put": ("put {} {}", "put {} in/on {}"),
    "clean": ("clean {} {}", "clean {} with {}"), "heat": ("heat {} {}", "heat {} with {}"),
    "cool": ("cool {} {}", "cool {} with {}"), "use": ("use {}", "use {}"),
    "examine": ("examine {}", "examine {}"), "look": ("look around", "look"),
    "inventory": ("check inventory", "inventory")}
STYLES = ("terse", "plain")


def say(action, style):
    """("take", "apple", "counter") -> "take apple counter" or "take apple from counter" """
    return TEMPLATES[action[0]][STYLES.index(style)].format(*action[1:])


def _all_actions():
    yield from (("look",), ("inventory",), ("use", "lamp"))
    yield from (("go", room) for room in ROOMS)
    yield from ((verb, place) for place in sorted(OPENABLE) for verb in ("open", "close"))
    for thing in KIND_OF:
        yield ("examine", thing)
        yield from ((verb, thing, place) for place in sorted(HOLDERS) for verb in ("take", "put"))
        yield from ((verb, thing, device) for verb, device in DEVICES.items())


ACTIONS = tuple(_all_actions())
COMMANDS = {style: {say(action, style): action for action in ACTIONS} for style in STYLES}

# ---- observations ----


def render(facts, style="terse"):
    """The text of an observation that states these facts (House.visible)."""
    found = {}  # predicate -> its arguments
    for predicate, *arguments in sorted(facts):
        found.setdefault(predicate, []).append(arguments)
    inside = {}  # place -> things in it
    for thing, place in found.get("in", ()):
        inside.setdefault(place, []).append(thing)
    properties = [p for p in PROPERTIES if p in found]
    stated = [place for p in ("open", "shut", "lit", "dark") for place, in found.get(p, ())]
    fitting = stated[0] if stated else None
    if facts == NOTHING:
        return "nothing happens here" if style == "terse" else "Nothing happens."
    if "at" in found:
        return room_view(found["at"][0][0], found, inside, style)
    if found.get("hold") == [["nothing"]]:
        return "you hold nothing" if style == "terse" else "You carry nothing."
    if fitting:  # the player opens, closes or uses it
        if style == "plain":
            return fitting_text(fitting, found, inside)
        return " ".join([fitting, "is", *found.keys() - {"in"}, *inside.get(fitting, ())])
    if "hold" in found:
        thing, where = found["hold"][0][0], ("is held", "is in your hand")
    else:
        thing, place = found["in"][0]
        where = (f"in {place}", f"is {'on' if place in SURFACES else 'in'} the {place}")
    if style == "terse":
        return " ".join([thing, where[0], *properties])
    about = f" It is {' and '.join(properties)}." if properties else ""
    return f"The {thing} {where[1]}.{about}"


def room_view(room, found, inside, style):
    doors = sorted(a if b == room else b for a, b in found.get("door", ()))
    surface, fitting = ROOMS[room]
    if style == "terse":
        seen = ["shut"]
        if "shut" not in found:
            seen = [p for p in ("lit", "dark") if p in found] + inside.get(fitting, [])
        return " ".join([room, *doors, surface, *inside.get(surface, []), fitting, *seen])
    lead = "Doors lead" if len(doors) > 1 else "A door leads"
    there = " and ".join(f"the {other}" for other in doors)
    return (f"You are in the {room}. {lead} to {there}. "
            f"On the {surface}, you see {listed(inside.get(surface, ()))}. "
            f"{fitting_text(fitting, found, inside)}")


def fitting_text(fitting, found, inside):
    if "shut" in found:
        return f"The {fitting} is closed."
    if fitting == "lamp":
        return f"The lamp is {'lit' if 'lit' in found else 'dark'}."
    here = f"you see {listed(inside.get(fitting, ()))}."
    if fitting in OPENABLE:
        return f"The {fitting} is open. In it, {here}"
    return f"In the {fitting}, {here}"


def listed(things):
    named = [f"an {thing}" if thing[0] in "aeiou" else f"a {thing}" for thing in things]
    return " and ".join(named) or "nothing"


SAME = {"closed": "shut", "hand": "held", "carry": "hold"}  # plain word -> terse word
KNOWN = {*ROOMS, *ROOM_OF, *KIND_OF, *PROPERTIES, "shut", "open", "lit", "dark", "held", "hold",
         "nothing", "happens"}


def parse(text):
    """The facts that an observation states, whatever its style; of any other text what can be made
    of it."""
    words = [SAME.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]
    words = [word for word in words if word in KNOWN]  # the others only help to read
    first, second = (words + [None, None])[:2]
    if first == "nothing" and second == "happens":
        return NOTHING
    if first == "hold" and second == "nothing":
        return frozenset({("hold", "nothing")})
    if first in KIND_OF:
        facts = {(word, first) for word in words[2:] if word in PROPERTIES}
        if second == "held":
            facts.add(("hold", first))
        elif second in HOLDERS:
            facts.add(("in", first, second))
        return frozenset(facts)
    facts, place = set(), None
    if first in ROOMS:
        facts.add(("at", first))
    for word in words:
        if word in ROOMS and word != first and first in ROOMS:
            facts.add(door(first, word))
        elif word in ROOM_OF:
            place = word
            if word in OPENABLE:
                facts.add(("open", word))  # unless it is said to be shut
        elif word in KIND_OF and place in HOLDERS:
            facts.add(("in", word, place))
        elif word == "shut" and place in OPENABLE:
            facts = facts - {("open", place)} | {("shut", place)}
        elif word in ("lit", "dark") and place == "lamp":
            facts.add((word, "lamp"))
    return frozenset(facts)


def room_of(facts):
    """The room in which these facts put the player; None when they do not say."""
    return next((f[1] for f in facts if f[0] == "at"), None)


def remember(facts, stated):
    """What a player knows after an observation: the old facts, but for those that the new ones
    replace. The player is in one room; a thing is in one place, or in the hand; a fitting is open
    or shut."""
    moved = {f[1] for f in stated if f[0] in ("in", "hold")}
    fittings = {f[1] for f in stated if f[0] in ("open", "shut", "lit", "dark")}
    # Places the player can see into: what is open, and what is in the room, but for what is shut.
    shown = {f[1] for f in stated if f[0] == "open"}
    shown |= {p for f in stated if f[0] == "at" for p in ROOMS[f[1]]}
    shown -= {f[1] for f in stated if f[0] == "shut"}
    warm = {f[1] for f in stated if f[0] in ("hot", "cold")}
    told = {f[0] for f in stated}

    def stale(f):
        if f[0] == "at":
            return "at" in told
        if f[0] == "in":
            return f[1] in moved or f[2] in shown
        if f[0] == "hold":
            return "hold" in told or f[1] in moved
        if f[0] in ("open", "shut", "lit", "dark"):
            return f[1] in fittings
        return f[0] in ("hot", "cold") and f[1] in warm
    return frozenset(f for f in facts if not stale(f)) | stated


def door(a, b):
    """One fact for both directions."""
    return ("door", *sorted((a, b)))
