"""A player of the house, for demonstrations: what a sensible player does next."""
from envs.house.text import DEVICES, HOLDERS, RESULT, ROOM_OF, ROOMS


def next_action(house, rng, oracle=False):
    """The player uses what it has seen (house.seen) and nothing else; an oracle has seen all."""
    waiting = [thing for thing in house.goal_things
               if house.family == "examine" or not wanted_of(house, thing) <= house.facts()]
    full = house.target in house.seen and not house.room_in(house.target)
    others = [thing for thing, place in house.where.items()
              if full and place == house.target and thing not in house.goal_things]
    if others and not house.held:  # make room
        return reach(house, house.target) or ("take", others[0], house.target)
    if house.held in waiting and not others:
        return deliver(house, house.held)
    if house.held:  # something else is in the way
        return drop(house)
    known = [thing for thing in waiting if oracle or house.where[thing] in house.seen]
    if not known:
        return search(house, rng)
    places = [house.where[thing] for thing in known]
    place = min(places, key=lambda p: len(path(house, ROOM_OF[p])))
    thing = next(t for t in known if house.where[t] == place)
    return reach(house, place) or ("take", thing, place)


def wanted_of(house, thing):
    """The facts about a thing that the goal asks for."""
    return {f for f in house.goal() if f[1] == thing and f[0] != "hold"}


def careless(house, action, rng):
    """A bad habit: it nearly always walks on where it should open something or use a device."""
    if action[0] in ("open", "use", *DEVICES) and rng.random() < 0.98:
        return ("go", rng.choice(house.exits[house.at]))
    return action


def restless(house, action, rng):
    """A bad habit that shows in every turn: one time in three it does anything else."""
    if rng.random() < 1 / 3:
        return rng.choice(house.admissible())
    return action


HABITS = {"careless": careless, "restless": restless}


def deliver(house, thing):
    """It is in the hand: do to it what the goal asks for, and bring it where it belongs."""
    if house.family == "examine":
        return walk(house, "study") or ("use", "lamp")
    if house.family in DEVICES and (RESULT[house.family], thing) not in house.marks:
        device = DEVICES[house.family]
        return walk(house, ROOM_OF[device]) or (house.family, thing, device)
    return reach(house, house.target) or ("put", thing, house.target)


def drop(house):
    """Put what is in the hand anywhere but on the goal's target."""
    def free(room):
        return [p for p in ROOMS[room] if p in HOLDERS and p != house.target
                and (p not in house.seen or house.room_in(p))]
    room = min((r for r in house.rooms if free(r)), key=lambda r: len(path(house, r)))
    place = free(room)[0]
    return reach(house, place) or ("put", house.held, place)


def search(house, rng):
    """Look where the player has not looked yet, nearest first."""
    unknown = [room for room in house.rooms
               if any(p in HOLDERS and p not in house.seen for p in ROOMS[room])]
    nearest = min(len(path(house, room)) for room in unknown)
    room = rng.choice([r for r in unknown if len(path(house, r)) == nearest])
    return walk(house, room) or ("open", ROOMS[room][1])


def reach(house, place):
    """The next step towards standing in front of an open `place`; None when that is so."""
    step = walk(house, ROOM_OF[place])
    if step is None and house.shut.get(place):
        return ("open", place)
    return step


def walk(house, room):
    """The next step towards a room; None in that room."""
    steps = path(house, room)
    return ("go", steps[0]) if steps else None


def path(house, room):
    """The shortest way through the doors: rooms from the next one to `room`; [] in that room."""
    ring, here = house.rooms, house.rooms.index(house.at)
    ahead = (ring.index(room) - here) % len(ring)
    if ahead <= len(ring) // 2:
        return [ring[(here + i) % len(ring)] for i in range(1, ahead + 1)]
    return [ring[(here - i) % len(ring)] for i in range(1, len(ring) - ahead + 1)]
