"""The words of ScienceWorld: its texts shortened to a line by rules, and the facts they state.

    This room is called the kitchen. In it, you see:
        the agent
        a counter. On the counter is: a bowl (containing ...

    kitchen: counter (bowl (red apple, banana), drawer); fridge closed; sink off; thermometer at
    10 C; door to hallway open

A fact is a tuple of str, (predicate, thing, ...), true of some thing of that name: four wood cups
are all "wood cup". An animal or a plant goes by its species ("pea" for "a pea plant in the adult
stage"), as in the object tree. Doors are not in the tree, so they are no facts.
"""
import re

PREDICATES = {  # predicate -> the number of its arguments
    "at": 1, "in": 2, "hold": 1, "open": 1, "shut": 1, "on": 1, "off": 1}
MAX_WORDS = 6  # words an argument may have
# The world-model paper's split of its results: by how many facts the next observation needs.
FACTS_NEEDED = (5, 10, 30)
ROOMS = ("kitchen", "bathroom", "outside", "hallway", "greenhouse", "bedroom", "art studio",
         "workshop", "living room", "foundry")
# States that no text tells, though they are in the tree: of a drawer whether it is open, of a
# fridge that it is on.
UNTOLD = {
    **dict.fromkeys(("drawer", "glass jar", "metal pot"), ("open", "shut")),
    **dict.fromkeys(("fridge", "freezer", "ultra low temperature freezer", "toilet"),
                    ("on", "off"))}
# A text says that these are off, the tree does not.
ELECTRIC = re.compile(r".*(?:light bulb|electric|solar panel|battery)")
# These are in the tree, and of no interest.
PARTS = re.compile(r"terminal \d+|anode|cathode|air|agent|inventory")

RULES = [(re.compile(pattern), short) for pattern, short in (  # applied in this order
    (r"This (?:room|outside location) is called the ([^.\n]*)\. (?:In it, y|Here y)ou see:",
     r"\1:"),
    (r"In your inventory, you see:", "inventory:"),
    (r"\n?You also see:", ""),
    (r"door to the ", "door to "),
    (r"\n\t(?:the agent|a substance called air)(?=\n|$)", ""),  # they are everywhere
    (r"\ba substance called ", ""),
    (r"\.? (?:On|In) the [^.:\n]* is: nothing\.?", ""),
    (r" \(containing nothing\)", ""),
    (r"\(containing ", "("),
    (r", which is (?:turned )?(on|off|activated|deactivated|open|closed)\b", r" \1"),
    (r", currently reading a temperature of (-?\d+) degrees celsius", r" at \1 C"),
    (r"\. The [^.\n]* door is (open|closed)\b\.?", r" \1"),
    (r" \(that is (open|closed)\)", r" \1"),
    (r"\. On the [^.:\n]* you see: ([^.\n]*)\. ?", r" (\1)"),  # a flower on a plant
    (r"\.? (?:On|In) the [^.:\n]* is: ([^\n ][^\n]*?)[. ]*(?=\n|$)", r" (\1)"),
    # Such as a pillow on a mattress on a bed.
    (r"\.? (?:On|In) the [^.:\n]* is: ([^\n()]*?)\.*(?=\))", r" (\1)"),
    (r"(\t|\(|, )(?:an?|the|A) ", r"\1"),
    (r"[. ]+(?=\n\t|\n*$)", ""),
    (r":\s*\n\t", ": "),
    (r"\s*\n\t", "; "))]


def squeeze(text, longest):
    """A text of the simulator -> a line of at most `longest` characters. What it lists is sorted:
    the order of two wood cups is by chance."""
    def in_order(found):
        return "\n\t" + "\n\t".join(sorted(found[0].split("\n\t")[1:]))
    text = re.sub(r"(?:\n\t[^\n]*)+", in_order, text)
    for pattern, short in RULES:
        text = pattern.sub(short, text)
    return " ".join(text.split())[:longest]


# ---- facts ----

def tree_facts(tree, here=False):
    """The object tree of the simulator -> frozenset of facts. here: those of the agent's room
    alone, without what is shut away."""
    room = next(room for room in tree["contents"].values()
                if any(thing["name"] == "agent" for thing in room["contents"].values()))
    facts = {("at", room["name"])}
    for node in [room] if here else tree["contents"].values():
        walk(node, node["name"], facts, here)
    return frozenset(facts)


def walk(node, holder, facts, here):
    """Add the facts about what is in a node of the tree, named `holder`."""
    for thing in node["contents"].values():
        name = (thing.get("propLife") or {}).get("lifeformType") or thing["name"].lower()
        if name == "agent" and not here:
            walk(thing, "agent", facts, here)
        if name == "inventory":
            walk(thing, "inventory", facts, here)
        if PARTS.fullmatch(name):
            continue
        facts.add(("hold", name) if holder == "inventory" else ("in", name, holder))
        box, device = thing.get("propContainer") or {}, thing.get("propDevice") or {}
        states = []
        if box.get("isClosable"):
            states.append("open" if box["isOpen"] else "shut")
        if device.get("isActivable"):
            states.append("on" if device["isActivated"] else "off")
        facts.update((state, name) for state in states if state not in UNTOLD.get(name, ()))
        if not (here and box.get("isClosable") and not box["isOpen"]):
            walk(thing, name, facts, here)


STATES = {"open": "open", "closed": "shut", "on": "on", "off": "off", "activated": "on",
          "deactivated": "off"}
ITEM = re.compile(rf"(.*?)(?: at -?\d+ C)?((?: (?:{'|'.join(STATES)}))*)(?: \((.*)\))?")
COLOURED = re.compile(
    r"^(?:red|orange|yellow|green|blue|violet|purple|pink|brown|black|white|grey) "
    r"(apple|pillow|flower)$")
SPECIES = re.compile(
    r"^(?:(?:baby|juvenile|adult|hatchling) )*(.*?)(?: (?:egg|plant|tree|seed))?"
    r"(?: in the \w+ stage.*)?$")


def parse(text):
    """The facts that a look around or an inventory states; of any other text none. Never raises."""
    found = re.search(rf"\b({'|'.join(ROOMS)}|inventory): (.*)", text[:4000])
    if not found:
        return frozenset()
    facts = set() if found[1] == "inventory" else {("at", found[1])}
    read(split(found[2], ";"), found[1], facts)
    return frozenset(facts)


def read(items, holder, facts):
    """Add the facts about what is listed."""
    for item in items:
        name, states, inside = ITEM.fullmatch(item).groups()
        if not name or name.startswith(("door to ", "drain")):  # not in the tree
            continue
        name = COLOURED.sub(r"\1", SPECIES.match(name.lower())[1] or name.lower())
        facts.add(("hold", name) if holder == "inventory" else ("in", name, holder))
        facts.update((STATES[state], name) for state in states.split() if not ELECTRIC.match(name))
        # The simulator nests three levels; the text of a model may nest without end.
        if inside and inside.count("(") < 20:
            read(split(inside, ","), name, facts)


def split(text, mark):
    """A list at its marks outside of brackets -> [items]"""
    items, depth = [""], 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == mark and depth == 0:
            items.append("")
        else:
            items[-1] += c
    return [item.strip() for item in items if item.strip()]


def room_of(facts):
    """The room in which these facts put the player; None when they do not say."""
    return next((f[1] for f in facts if f[0] == "at"), None)
