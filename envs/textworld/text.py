"""TextWorld's prose as facts: tuples (predicate, argument, ...) in the simulator's own words, but
for two.

    -= Kitchen =- You can make out a fridge. You make out a table. On the table you see a raw pork
    chop.
    ("at", "player", "kitchen") ("at", "fridge", "kitchen") ("closed", "fridge")
    ("on", "pork chop", "table") ("needs_cooking", "pork chop") ...

Prose names the direction of an exit and not the room behind it, so ("exit", room, direction) and
("door", room, direction, door) stand for what the simulator says with `link` and pairs of rooms.
"raw" is how the game prints what needs cooking. Left out of the simulator's vocabulary is what no
text states (cookable, cuttable, edible, free, ...). The player is "player", what it holds is in
"inventory".

What a room view leaves unsaid (closure): a container of which neither contents nor emptiness are
told is closed, and one of which they are is open; a supporter of which nothing is told is empty.
The furniture is that of cooking games: FITTINGS; of a quest game the parser reads exits, doors and
what lies on the floor, is carried, taken and put.
"""
import re

PREDICATES = {  # predicate -> the number of its arguments
    "at": 2, "in": 2, "on": 2, "exit": 2, "door": 3, "north_of": 2, "south_of": 2, "east_of": 2,
    "west_of": 2, "open": 1, "closed": 1, "locked": 1, "needs_cooking": 1, "raw": 1, "fried": 1,
    "roasted": 1, "grilled": 1, "burned": 1, "uncut": 1, "chopped": 1, "sliced": 1, "diced": 1,
    # A food and the line of the recipe, ingredient_0 to ingredient_4, which is fried,
    # chopped, ... in its turn.
    "base": 2, "consumed": 1}
MAX_WORDS = 3  # words an argument may have
# The world-model paper's split of its results: by how many facts the next observation needs.
FACTS_NEEDED = (2, 3, 4)
CONTAINERS = ("fridge", "oven", "toolbox")
FITTINGS = ("patio table", "patio chair", "BBQ", "bed", "counter", "shelf", "showcase", "sofa",
            "stove", "table", "toilet", "workbench", *CONTAINERS)
DIRECTIONS = ("north", "south", "east", "west")
COOKED, CUT = ("fried", "roasted", "grilled"), ("chopped", "sliced", "diced")
PRINTED = {"raw": "needs_cooking", **{word: word for word in (*COOKED, "burned", *CUT)}}
VERBS = {  # in a recipe, or in the answer to a command -> what a food is then
    "fry": "fried", "roast": "roasted", "grill": "grilled", "chop": "chopped", "slice": "sliced",
    "dice": "diced", "burned": "burned", **{word: word for word in COOKED}}
NAMES = {"P": "player", "I": "inventory"}

# ---- the simulator's facts ----


def facts_of(propositions):
    """TextWorld's Propositions, all that are true -> the same as tuples, with `exit` and `door` in
    place of `link`."""
    raw = [(p.name, *(NAMES.get(v.name, v.name) for v in p.arguments)) for p in propositions]
    doors = {(f[1], f[3]): f[2] for f in raw if f[0] == "link"}  # (room, room behind) -> door
    found = {f for f in raw if f[0] in PREDICATES and "RECIPE" not in f}
    for name, there, here in [f for f in found if f[0].endswith("_of")]:
        direction = name.removesuffix("_of")
        found.add(("exit", here, direction))
        if (here, there) in doors:
            found.add(("door", here, direction, doors[here, there]))
    return frozenset(found)


def readable(facts, view):
    """Those of the simulator's facts that a reader learns from a view, "room" or "inventory".

    They are the room, its exits, its doors and whether they are open, its furniture, the things on
    it, on the floor and in open containers; or the things carried. And what is printed about these
    things: not that a thing is uncut, nor that what may be eaten raw is raw, nor how a burned thing
    was cooked."""
    here = next(f[2] for f in facts if f[:2] == ("at", "player"))
    if view == "inventory":
        told = {f for f in facts if f[0] == "in" and f[2] == "inventory"}
    else:
        told = {f for f in facts if f[0] == "at" and f[2] == here}
        told |= {f for f in facts if f[0] in ("exit", "door") and f[1] == here}
        near = {f[1] for f in told} | {f[3] for f in told if f[0] == "door"}
        told |= {f for f in facts if f[0] in ("on", "in") and f[2] in near
                 and (f[0] == "on" or ("open", f[2]) in facts)}
        told |= {f for f in facts if f[0] in ("open", "closed", "locked") and f[1] in near}
    things = {f[1] for f in told if f[0] in ("at", "in", "on")}
    burned = {f[1] for f in facts if f[0] == "burned"}
    printed = {f for f in facts if f[0] in PRINTED.values() and f[1] in things}
    return frozenset(told | {f for f in printed if f[0] not in COOKED or f[1] not in burned})


def room_of(facts):
    """The room in which these facts put the player; None when they do not say."""
    return next((f[2] for f in facts if f[:2] == ("at", "player")), None)


# ---- text ----

def tidy(feedback):
    """What the game prints, as one line without the prompt and its status line, and without the
    line that the score went up. A recipe is its ingredients and directions, with commas between
    them."""
    text = re.split(r"\n>", feedback)[0].replace("Your score has just gone up by one point.", "")
    recipe = re.search(r"Ingredients:\s*(.*?)\s*Directions:\s*(.*)", text, re.DOTALL)
    if recipe:
        lines = [[line.strip() for line in part.split("\n")] for part in recipe.groups()]
        ingredients, directions = (", ".join(filter(None, part)) for part in lines)
        return f"Ingredients: {ingredients}. Directions: {directions}."
    return " ".join(text.split())


def shorten(text):
    """Of a room view, the sentences that state a fact which none before them states, by this file's
    parser; any other text as it is."""
    room, sentences = room_view(text)
    if room is None:
        return text
    kept, told = [], set()
    for sentence, facts in read(room, sentences):
        if not facts <= told:
            kept.append(sentence)
            told |= facts
    return " ".join([f"-= {room.capitalize()} =-", *kept])


def parse(text):
    """The facts that an observation states, whole or shortened; of any other text what can be made
    of it."""
    room, sentences = room_view(text)
    if room is None:
        return frozenset(reply(text))
    facts = {("at", "player", room)}.union(*(facts for _, facts in read(room, sentences)))
    seen = {f[1] for f in facts if f[0] == "at"}
    known = {f[1] for f in facts if f[0] in ("open", "locked")}
    return frozenset(facts | {("closed", place) for place in CONTAINERS if place in seen - known})


def room_view(text):
    """-> the room and the sentences of its description; None, [] of another text."""
    found = re.match(r"-= (.+?) =- ?(.*)", text)
    if not found:
        return None, []
    return found[1].lower(), re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"'])\s+", found[2])


def read(room, sentences):
    """-> a sentence and the facts that it states, one after another; one that only says "Empty!" is
    about the furniture before it."""
    place = None
    for sentence in sentences:
        facts = set(stated(sentence, room))
        if sentence == "Empty!" and place in CONTAINERS:
            facts.add(("open", place))
        place = next((f[1] for f in facts if f[0] == "at" and f[1] in FITTINGS), place)
        yield sentence, facts


def listed(text):
    """"a knife, some milk and a diced raw carrot" -> [("knife", []), ("milk", []), ("carrot",
    ["diced", "needs_cooking"])]"""
    found = []
    for name in re.findall(r"\b(?:an?|some) ([a-zA-Z' -]+?)(?=,| and |[.!]|$)", text):
        words = name.split()
        marks = [PRINTED[word] for word in words if word in PRINTED]
        found.append((" ".join(word for word in words if word not in PRINTED), marks))
    return found


def placed(predicate, things, place):
    for thing, marks in listed(things):
        yield (predicate, thing, place)
        yield from ((mark, thing) for mark in marks)


HOLDS = (("on", r"On the (?P<place>[a-zA-Z ]+?) (?:you (?:can )?(?:see|make out)|is|are) "
                r"(?P<things>.+)"),
         ("on", r"You (?:can )?(?:see|make out) (?P<things>.+) on the (?P<place>[a-zA-Z ]+)"),
         ("in", r"The (?P<place>[a-zA-Z ]+?) contains (?P<things>.+)"),
         ("in", r"In the (?P<place>[a-zA-Z ]+?) (?:is|are) (?P<things>.+)"))


def stated(sentence, room):
    """The facts that a sentence of a room's description states."""
    exit = re.search(r"exit to the (\w+)|try going (\w+)|"
                     r"(closed|open|locked) ([\w -]+) leading (\w+)", sentence)
    if exit:
        direction = next(d for d in exit.group(1, 2, 5) if d)
        yield ("exit", room, direction)
        if exit[4]:
            yield from (("door", room, direction, exit[4]), (exit[3], exit[4]))
        return
    floor = re.match(r"There (?:is|are) (.+) on the floor", sentence)
    if floor:
        yield from placed("at", floor[1], room)
        return
    for predicate, pattern in HOLDS:
        found = re.match(pattern, sentence)
        if found:
            yield from placed(predicate, found["things"].split(", so ")[0], found["place"])
            if predicate == "in":
                yield ("open", found["place"])
            return
    place = next((name for name in FITTINGS if re.search(rf"\b{name}\b", sentence)), None)
    if place:
        yield ("at", place, room)
        state = re.search(rf"\b(closed|locked|open)(?:ed)? {place}\b", sentence)
        # A BBQ may be called closed, but it is nothing that opens.
        if place in CONTAINERS and (state or f"The {place} is empty" in sentence):
            yield (state[1] if state else "open", place)


def reply(text):
    """The facts that the answer to a command states."""
    recipe = re.match(r"Ingredients: (.+?)\. Directions: (.+)\.", text)
    if recipe:
        foods = recipe[1].split(", ")
        lines = {food: f"ingredient_{i}" for i, food in enumerate(foods)}
        yield from (("base", food, line) for food, line in lines.items())
        todo = [(VERBS[verb], food) for verb, food in re.findall(r"(\w+) the ([\w ]+)", recipe[2])
                if verb in VERBS and food in lines]
        yield from ((mark, lines[food]) for mark, food in todo)
        for food, line in lines.items():  # no word about it: as it is
            done = {mark for mark, its in todo if its == food}
            if not done & set(COOKED):
                yield ("raw", line)
            if not done & set(CUT):
                yield ("uncut", line)
        return
    carried = re.match(r"You are carrying: (.+)", text)
    if carried:
        yield from placed("in", carried[1], "inventory")
    did = re.match(r"You (open|close|take|pick up|put|eat|drink|unlock|lock|\w+) (?:the )?(.+?)"
                   r"(?: (?:from|off) the .+?)?(?: (on|into) the (.+?))?(?:, revealing (.+?))?[.!]",
                   text)
    if did:
        verb, thing, how, where, inside = did.groups()
        if verb in ("open", "close", "lock"):
            yield ({"open": "open", "close": "closed", "lock": "locked"}[verb], thing)
            yield from placed("in", inside or "", thing)
        elif verb in ("take", "pick up"):
            yield ("in", thing, "inventory")
        elif verb == "put" and how:
            yield ("on" if how == "on" else "in", thing, where)
        elif verb in ("eat", "drink"):
            yield ("consumed", thing)
        elif verb in VERBS:
            yield (VERBS[verb], thing)
    looked = re.match(r"The (.+?) (?:looks|is|seems|appears) .+ It is (open|closed|locked)\.", text)
    if looked:
        yield (looked[2], looked[1])
    if text.startswith("Adding the meal"):
        yield ("in", "meal", "inventory")
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        for predicate, pattern in HOLDS:
            found = re.match(pattern, sentence)
            if found:
                yield from placed(predicate, found["things"], found["place"])
