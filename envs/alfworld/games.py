"""ALFWorld's games on TextWorld's PDDL engine: what a game's file says, a planner for it, and texts
made by its grammar.

A file game.tw-pddl holds the domain (official alfred.pddl), the grammar (official alfred.twl2 with
the task's sentence in it) and the problem: the objects of a room and where they are.
textworld.envs.pddl makes texts and facts of them, Fast Downward (GPL-3, by package, not a part of
this) says what can be done and finds plans. PddlEnv, the package's loop around both, translates a
problem four times and forms every command anew in every turn; the same is done here once: a
translation is kept on disk ($ALFWORLD_CACHE, else out/games), a command's text for a game, a parsed
grammar for all games. And the planner numbers the states it has seen, so any number of episodes
stand in one engine, each at its state.

TextWorld evaluates what a grammar computes as Python. Here nothing is evaluated: names, attributes,
"+", "or" and quoted words are read.
"""
import copy
import functools
import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from collections import namedtuple
from types import SimpleNamespace

from envs.lib.text import field, optional, parse_json, read_json, texts

Outcome = namedtuple("Outcome", "text won commands")
# A state: the planner's number of it, {command: operator}, the facts that led there.
Place = namedtuple("Place", "number operators changes")
Operator = namedtuple("Operator", "id name effects")  # of the planner; how many effects it has
HARMLESS = ("look", "inventory", "examine", "help")  # commands that change nothing in the world
TASK = re.compile(r'Your task is to: ((?:[^"\\]|\\.)*)"')
TERM = r"'[^']*'|[a-z]\w*(?:\.(?:id|name|definite|indefinite))?"
KEPT = 32  # games a process holds at once, a planner each
SPARE = []  # planners without a game: to close one (close_lib) breaks the process, sooner or later


@functools.cache
def engine():
    """The packages, imported once; what they parse is remembered. ImportError when one is
    missing."""
    import fast_downward
    import textworld.logic
    from textworld.envs.pddl import logic, textgen
    from textworld.generator.game import EntityInfo
    parsed = functools.cache(textgen._parse_and_convert)

    def parse(text, **how):
        return copy.deepcopy(parsed(text, **how))  # the package writes to these symbols

    def copy_context(context):  # the values themselves never change
        return {**context, "variables": dict(context["variables"]),
                "mapping": dict(context["mapping"])}

    def derive(symbol, context=None):
        variables = (context or symbol.context)["variables"]
        return [textgen.TerminalSymbol(compute(symbol.expression, variables))]
    textgen._parse_and_convert, textgen.copy_context = parse, copy_context
    textgen.EvalSymbol.derive = derive
    rule = textworld.logic.Rule
    rule.parse_conjunctive_query = staticmethod(functools.cache(rule.parse_conjunctive_query))
    return SimpleNamespace(
        planner=fast_downward, logic=logic, world=textworld.logic, EntityInfo=EntityInfo)


def compute(expression, variables):
    """What a grammar computes: "o.indefinite + ' ' + o.name" -> "a apple 1", "r.name or r.id" ->
    "desk 1". ValueError when it is anything else."""
    if not re.fullmatch(rf"\s*(?:{TERM})(?:\s*(?:\+|\bor\b)\s*(?:{TERM}))*\s*", expression):
        raise ValueError(f"a grammar computes {expression[:60]!r}")
    for option in re.split(r"\bor\b", expression):
        text = "".join(value(term, variables) for term in re.findall(TERM, option))
        if text:
            return text
    return ""


def value(term, variables):
    if term[0] == "'":
        return term[1:-1]
    name, _, attribute = term.partition(".")
    return getattr(variables[name], attribute or "name") or ""


@functools.cache
def rules(domain, grammar):
    """-> TextWorld's GameLogic, {action: [(parameter, type)]}. All games of a format share one."""
    world, logic = engine().world, engine().logic.GameLogic(domain=domain, grammar=grammar)
    plain = re.sub(r";.*", "", domain.lower())
    logic.types.add(world.Type("object", []))
    for name in re.search(r"\(:types([^()]*)\)", plain)[1].split():
        if name != "object":
            logic.types.add(world.Type(name, ["object"]))
    actions = {}
    for name, parameters in re.findall(r"\(:action\s+(\S+)\s+:parameters\s*\(([^()]*)\)", plain):
        actions[name] = re.findall(r"\?(\S+)\s+-\s+(\S+)", parameters)
    return logic, actions


def read_problem(problem):
    """-> {object: type}, [(predicate, object, ...)] of the beginning"""
    plain = re.sub(r";.*", "", problem.lower())
    types, names = {}, []
    words = iter(re.search(r"\(:objects([^()]*)\)", plain)[1].split())
    for word in words:
        if word == "-":
            types.update(dict.fromkeys(names, next(words)))
            names = []
        else:
            names.append(word)
    begin = plain[plain.index("(:init"):plain.index("(:goal")]
    begin = re.sub(r"\(=[^()]*(?:\([^()]*\))?[^()]*\)", "", begin[6:])  # distances and costs
    return types, [tuple(atom.split()) for atom in re.findall(r"\(([^()]+)\)", begin)]


def demangle(names):
    """{"apple_bar__plus_00_dot_12_bar_...": "apple 1", ...}: things of a kind are counted from the
    last in alphabetical order."""
    kinds, out = {}, {}
    for name in sorted(names, reverse=True):
        kind, _, rest = name.partition("_bar_")
        kind += "basin" if rest and "basin" in name else ""
        if rest:
            kinds[kind] = kinds.get(kind, 0) + 1
        out[name] = f"{kind} {kinds[kind]}" if rest else kind
    return out


def kept(key, work):
    """work() -> bytes, kept on disk by a hash of `key`."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    path = os.path.join(os.environ.get("ALFWORLD_CACHE", "out/games"), f"alfworld-{name}.gz")
    try:
        with gzip.open(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error):
        found = work()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.{os.getpid()}", "wb") as file:
        file.write(gzip.compress(found, 3))
    os.replace(file.name, path)
    return found


def translate(domain, problem, optimize):
    """-> a problem in the planner's own format, SAS; 0.5 to 8 s. optimize: in the form that plans
    are sought in."""
    argv = sys.argv
    try:
        return engine().planner.pddl2sas(domain, problem, optimize=optimize)[1].encode()
    finally:
        sys.argv = argv  # the translator sets its own


class Game:
    """One game, played by any number of episodes: `said` is the commands of one so far, all of
    which could be done. The first text needs no planner; it starts when something else is asked.
    Raises whatever a broken engine or file raises."""

    def __init__(self, path):
        data = read_json(path)
        grammar, self.domain, self.problem = (
            field(data, name) for name in ("grammar", "pddl_domain", "pddl_problem"))
        self.walkthrough = tuple(texts(optional(data, "walkthrough", list), "walkthrough"))
        task, self.grammar = TASK.search(grammar), TASK.sub('UNKNOWN GOAL"', grammar)
        if not task:
            raise ValueError("the grammar states no task")
        self.logic, self.actions = rules(self.domain, self.grammar)
        self.types, atoms = read_problem(self.problem)
        world, self.state = engine().world, object.__new__(engine().world.State)
        self.state._logic, self.beginning = self.logic, {}
        for predicate, *arguments in atoms:
            variables = [world.Variable(name, self.types[name]) for name in arguments]
            fact = world.Proposition(predicate, variables)
            self.beginning.setdefault(fact.signature, set()).add(fact)
        self.infos = {}
        names = {name for _, *arguments in atoms for name in arguments}
        for name, text in demangle(names).items():
            info = self.infos[name] = engine().EntityInfo(name, self.types[name])
            info.name, info.definite, info.indefinite = text, "the", "a"
        places = {atom[1] for atom in atoms if atom[0] == "receptacleatlocation"}
        self.receptacles = sorted({self.infos[place].name for place in places})
        self.state._facts, goal = self.beginning, parse_json(f'"{task[1]}"')
        intro = re.sub("^-=.*?=-", "", self.text("#intro#", {}))
        self.first = " ".join(intro.replace("UNKNOWN GOAL", f"Your task is to: {goal}").split())
        self.commands, self.places, self.lib = {}, {}, None

    def start(self):
        self.lib = SPARE.pop() if SPARE else engine().planner.load_lib()
        self.lib.load_sas(self.kept("sas", lambda: translate(self.domain, self.problem, False)))
        self.places = {(): Place(self.lib.get_state_id(), self.operators(), ())}
        self.can_plan = False

    def stop(self):
        """Leave the planner to another game."""
        if self.lib:
            SPARE.append(self.lib)
            self.lib, self.places = None, {}

    def text(self, rule, mapping):
        variables = {placeholder.name: self.infos[variable.name]
                     for placeholder, variable in mapping.items()}
        return self.logic.grammar.derive(rule, {
            "state": self.state, "facts": (), "variables": variables, "mapping": mapping,
            "entity_infos": self.infos})

    def read(self, operator):
        """An operator's name -> TextWorld's action, which names it is about"""
        name, *arguments = operator.split()
        world = engine().world
        mapping = {world.Placeholder(parameter, kind): world.Variable(argument, kind)
                   for (parameter, kind), argument in zip(self.actions[name], arguments)}
        return self.logic.actions[name], mapping

    def command(self, operator):
        """An operator's name -> the command; it is the same wherever it can be said."""
        if operator not in self.commands:
            action, mapping = self.read(operator)
            self.commands[operator] = self.text(action.template, mapping)
        return self.commands[operator]

    def operators(self):
        """-> {command: Operator} of what can be done where the planner stands, the first where two
        are said alike"""
        found = (engine().planner.Operator * self.lib.get_applicable_operators_count())()
        self.lib.get_applicable_operators(found)
        out = {}
        for operator in found:
            own = Operator(operator.id, operator.name, operator.nb_effect_atoms)
            out.setdefault(self.command(operator.name), own)
        return out

    def place(self, said):
        """-> the Place where these commands lead. KeyError when one of them cannot be done."""
        if self.lib is None:
            self.start()
        if said not in self.places:
            before = self.place(said[:-1])
            operator = before.operators[said[-1]]
            self.lib.set_state_id(before.number)
            effects = (engine().logic.Atom * operator.effects)()
            self.lib.apply_operator(operator.id, effects)
            number, operators = self.lib.get_state_id(), self.operators()
            changes = [effect.get_fact(self.types) for effect in effects]
            self.places[said] = Place(number, operators, changes)
        return self.places[said]

    def facts(self, said):
        """-> {signature: facts} there, as PddlState has them: an effect is added, its opposite
        taken away."""
        out, own = dict(self.beginning), set()
        places = [self.place(said[:n]) for n in range(1, len(said) + 1)]
        for change in (change for place in places for change in place.changes):
            opposite = change.negate()
            for signature in {change.signature, opposite.signature} - own:
                out[signature] = set(out.get(signature, ()))
                own.add(signature)
            out[opposite.signature].discard(opposite)
            out[change.signature].add(change)
        return out

    def after(self, said):
        """-> the Outcome of these commands."""
        place, text = self.place(said), self.first
        if said:
            action, mapping = self.read(self.place(said[:-1]).operators[said[-1]].name)
            self.state._facts = self.facts(said)
            text = " ".join(self.text(action.feedback_rule, mapping).split())
        self.lib.set_state_id(place.number)
        return Outcome(text, self.lib.check_goal(), sorted(place.operators))

    def plan(self, said):
        """-> (commands) that win from there: the rest of the walkthrough while it is followed, else
        the planner's; () when it finds none."""
        real = tuple(command for command in said if command.split()[0] not in HARMLESS)
        if self.walkthrough and real == self.walkthrough[:len(real)]:
            return self.walkthrough[len(real):]
        if said:
            return tuple(self.search(said))
        return tuple(json.loads(self.kept("plan", lambda: json.dumps(self.search(said)).encode())))

    def search(self, said):
        """-> [commands], the planner's; 0.1 to 5 s."""
        place = self.place(said)
        if not self.can_plan:
            sas = self.kept("plan_sas", lambda: translate(self.domain, self.problem, True))
            self.lib.load_sas_replan(sas)
            self.can_plan = True
        self.lib.set_state_id(place.number)
        if self.lib.check_goal() or not self.lib.replan(False):
            return []
        steps = (engine().planner.Operator * self.lib.get_last_plan_length())()
        self.lib.get_last_plan(steps)
        return [self.command(step.name) for step in steps]

    def kept(self, what, work):
        return kept([what, self.domain, self.grammar, self.problem], work)


def open_game(games, path):
    """-> the Game, one of the last KEPT that were asked for. games: {path: Game}"""
    game = games.pop(path, None) or Game(path)
    games[path] = game
    while len(games) > KEPT:
        games.pop(next(iter(games))).stop()
    return game
