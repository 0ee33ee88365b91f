"""Is the answer in the last box of a reply equal to the reference? Our own rules.

    \\boxed{...} -> last_box -> normal -> open_questions -> equal, different, or left to ask

The rules work on texts and on exact fractions; nothing is evaluated. They decide most answers. What
they cannot decide, such as 3\\sqrt{2} against \\sqrt{18}, is left to a library (library.py).

An answer is a tree: a list, a set, a tuple, an interval, a matrix or a union has parts. The rules
compare the trees, and the library sees the leaves only. So it never gets to say that (1,2) is
{1,2}.
"""
import re
from fractions import Fraction

from envs.gsm8k import LONG, LONGEST as LONG_ENOUGH, read_number, rounds
from envs.math.units import WORDS, split_unit

LONGEST = 200  # characters of an answer; a longer one earns 0, unless its reference is long too
DEEPEST = 8  # a list in a tuple in a set ...
MOST_PARTS = 40  # of a list; a longer one must be equal as a text

# ---- the last box ----

BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*(\{?)|\\.|[{}]", re.DOTALL)
BARE = re.compile(r"(?:[^\s${}]|\{[^{}$]*\}){1,200}")  # \boxed 5


def last_box(text):
    """"so \\boxed{\\frac{1}{2}}." -> "\\frac{1}{2}". None when there is no box, or when one is left
    open. Of nested boxes the outer one counts."""
    opened = []  # for each open brace: where its box begins, or None when it is a plain brace
    boxes = []  # (begin, end) of the boxes that are closed and in no other closed one
    for found in BOX.finditer(text):
        if found[0] == "{":
            opened.append(None)
        elif found[1] == "{":
            opened.append(found.end())
        elif found[1] == "":
            bare = BARE.match(text, found.end())
            boxes += [bare.span()] if bare else []
        elif found[0] == "}" and opened:
            close(boxes, opened.pop(), found.start())
    if not boxes or any(begin is not None for begin in opened):
        return None
    return text[slice(*boxes[-1])]


def close(boxes, begin, end):
    """A brace is closed: was it a box, then it replaces those within it."""
    if begin is None:
        return
    while boxes and boxes[-1][0] > begin:
        boxes.pop()
    boxes.append((begin, end))


# ---- one way to write it ----

UNICODE = str.maketrans({
    "π": r"\pi ", "∞": r"\infty ", "×": "*", "·": "*", "⋅": "*", "−": "-", "–": "-",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "±": r"\pm ", "°": r"^\circ ", "√": r"\sqrt ", "θ": r"\theta ", "∅": r"\emptyset ",
    "≈": r"\approx ",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"})
SIZES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # powers of ten
GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"  # braces, and braces within
ARGUMENT = r" *([0-9a-zA-Z]|\\[a-zA-Z]+)"  # what a command without braces takes
PATTERNS = [(re.compile(pattern), new) for pattern, new in [
    (r"√ *([0-9]+)", r"\\sqrt{\1}"),
    (r"\s+", " "),
    (r"^ ?\\(?:boxed|fbox) *\{(.*)\} ?$", r"\1"),
    (r"\\\\(?:\[[^\]]*\])?", "\n"),  # the end of a row; all other white space is " " by now
    (r"\\\(|\\\)|\\\[|\\\]", ""),
    (r", ?\\! ?|\{,\}", ""),  # thousands
    (r"\\!", ""),
    (r"\\[,;: ]|~|\\q?quad(?![a-zA-Z])", " "),
    (r"(?<!\\not)\\approx(?![a-zA-Z])", "="), (r"^ ?=", ""),
    (r"\\(?:left|right)\.", ""),
    (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
    (r"\\(?:text(?:bf|it|rm|sf|normal)?|mbox|hbox|mathrm|rm|operatorname) ?\{", r"\\text{"),
    (r",? ?\\text\{ ?,? ?(?:and|or) ?\}", ","),
    (r",? (?:and|or) ", ","),
    (r"\\text\{ ?([ei]) ?\}", r"\1"),  # upright: the constants, not units
    (r"(?<=[0-9]) ?(\\text\{)? ?(hundred|thousand|[mb]illion|trillion)(?![a-z]) ?(?(1)(\}?))",
     lambda m: f"*10^{SIZES[m[2]]}" + (r"\text{" if m[1] and not m[3] else "")),
    (r"\\(?:mathbf|boldsymbol|bm|mathit|vec) ?\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1"),
    (r"\\(?:bf|it|rm|sf|tt)(?![a-zA-Z])", ""),
    (r"[(\[] ?\\begin\{array\} ?(?:\{[^{}]*\})?((?:[^\\]|\\(?!(?:begin|end)\{array\}))*)"
     r"\\end\{array\} ?[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
    (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\\(?:l|r)brace(?![a-zA-Z])", lambda m: r"\{" if m[0][1] == "l" else r"\}"),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\(le|ge|ne)q(?:slant)?(?![a-zA-Z])", r"\\\1"),
    (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"<=", r"\\le "), (r">=", r"\\ge "),
    (r"\\varnothing(?![a-zA-Z])|\\\{ *\\\}", r"\\emptyset "),
    (r"\\(?:cdot|times|ast)(?![a-zA-Z])", "*"),
    (r"\\degrees?(?![a-zA-Z])|\^ *\{ *\\circ *\}|\^ *\\circ", r"^\\circ"),
    (r"(?<![0-9])([0-9]{1,3}) (?=[0-9]{3}(?![0-9/]))", r"\1"),  # thousands: 12 000
    (r"(?<=[0-9]) +(?=[0-9])", "\t"),  # a space that means something
    (r"(\\[a-zA-Z]+) +(?=[a-zA-Z])", "\\1\t"),
    (r" ", ""), (r"\t", " "),
    (rf"\\frac{ARGUMENT}", r"\\frac{\1}"),  # \frac12 -> \frac{1}2 -> \frac{1}{2}
    (rf"(\\frac{GROUP}){ARGUMENT}", r"\1{\2}"),
    (rf"\\sqrt{ARGUMENT}", r"\\sqrt{\1}"),
    (r"([\^_])\{(.)\}", r"\1\2"),
    (r"(?<![0-9])\.(?=[0-9])", "0."),
    (r"\+(?=\\infty)", ""),
    (r"^\n+|[.,;:\n]+$", "")]]


def normal(text):
    """The text in one way to write it."""
    text = PATTERNS[0][0].sub(PATTERNS[0][1], text).translate(UNICODE)
    for pattern, new in PATTERNS[1:]:
        text = pattern.sub(new, text)
    return text


# ---- names ----

VARIABLE = r"(?:[a-zA-Z]|\\[a-zA-Z]+)(?:_[0-9a-z])?"
TUPLE = rf"\({VARIABLE}(?:,{VARIABLE})*\)"
CALLED = rf"(?:\^\{{-1\}})?{TUPLE}"  # f(x), f^{-1}(x)
NAMED = re.compile(rf"((?:{VARIABLE}(?:{CALLED})?|{TUPLE})(?:=|\\in(?![a-zA-Z]))) ?([^=]+)")
SAID = re.compile(r"((?:[a-zA-Z\\+|{} ]|\([0-9a-z,]+\)|_[0-9a-z])+=)([^=]+)")  # m+n=, f(2)=


def without_name(gold, said):
    """"x=5" against "5" or "x=5" -> "5" against "5". Two names that differ stay."""
    named, other = NAMED.fullmatch(gold), NAMED.fullmatch(said)
    if named and other:
        return (named[2], other[2]) if named[1] == other[1] else (gold, said)
    if named and "=" not in said:
        return named[2], said
    other = other or SAID.fullmatch(said)
    if other and "=" not in gold:
        return gold, other[2]
    return gold, said


RELATION = re.compile(r"(\\[lg][et](?![a-zA-Z]) ?|[<>])")
LESS = {"<": "<", "\\lt": "<", "\\le": "<=", ">": ">", "\\gt": ">", "\\ge": ">="}


def as_interval(text):
    """"-1\\le k<2" -> "[-1,2)" and "x>3" -> "(3,\\infty)"; any other text as it is."""
    parts = [part.strip() for part in RELATION.split(text)]
    bounds, signs = parts[::2], [LESS[sign] for sign in parts[1::2]]
    if not signs or len(signs) > 2 or len({sign[0] for sign in signs}) > 1:
        return text
    if signs[0][0] == ">":
        bounds, signs = bounds[::-1], [sign.replace(">", "<") for sign in signs[::-1]]
    names = [i for i, name in enumerate(bounds) if re.fullmatch("[a-df-hj-zA-Z]", name)]
    if len(names) != 1 or "," in text or (len(signs) == 2 and names != [1]):
        return text
    at, = names
    below = f"{'[' if signs[0] == '<=' else '('}{bounds[0]}" if at else r"(-\infty"
    above = f"{bounds[-1]}{']' if signs[-1] == '<=' else ')'}" if at < len(signs) else r"\infty)"
    return f"{below},{above}"


# ---- numbers ----

DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
FRACTION = re.compile(r"([+-]?)([0-9]*)\\frac\{([^{}]+)\}\{([^{}]+)\}")
REPEATING = re.compile(r"([+-]?)([0-9]*)\.([0-9]{0,9})\\(?:overline|bar)\{?([0-9]{1,9})\}?")
MIXED = re.compile(r"([+-]?)([0-9]+) ([0-9]+)/([0-9]+)")
TEN = r"10\^(?:([+-]?[0-9]{1,3})|\{([+-]?[0-9]{1,3})\})"
SCIENTIFIC = [re.compile(rf"({DECIMAL})\*{TEN}"), re.compile(rf"([+-]?){TEN}"),
              re.compile(rf"({DECIMAL})[eE]([+-]?[0-9]{{1,3}})()")]


def simple(text):
    """"1,080.5" or "1/3" -> its value; None when it is not one number."""
    if re.fullmatch(DECIMAL, text):
        return Fraction(text)
    found = read_number(text)
    return found and found[0]


def number(text):
    """A number, a fraction, a mixed number or a power of ten -> its value, exactly; else None."""
    for pattern in SCIENTIFIC:
        if found := pattern.fullmatch(text):
            factor = found[1] if found[1].strip("+-") else f"{found[1]}1"
            return Fraction(factor) * Fraction(10) ** int(found[2] or found[3])
    if found := REPEATING.fullmatch(text):  # 0.1\overline{6} = (16 - 1) / 90
        sign, whole, once, again = found.groups()
        repeated = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once))
        return Fraction(f"{sign}1") * (Fraction(f"{whole or 0}.{once}0") + repeated)
    found = FRACTION.fullmatch(text) or MIXED.fullmatch(text)
    if not found:
        return simple(text)
    sign, whole, above, below = found.groups()
    above, below = simple(above), simple(below)
    if above is None or not below or (whole and (above < 0 or below < 0)):
        return None
    return Fraction(f"{sign}1") * (int(whole or 0) + above / below)


# ---- parts ----

TOKEN = re.compile(r"\\[{}]|\\[a-zA-Z]+|\\.|[()\[\]{},;]", re.DOTALL)
MATRIX = re.compile(r"\\begin\{([pb]matrix)\}(.*)\\end\{[pb]matrix\}", re.DOTALL)
THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
LEADING_ZERO = re.compile(r"0[0-9]")


def split(text, mark):
    """The pieces between the marks ("," or "\\cup") that no bracket holds."""
    pieces, depth, begin = [], 0, 0
    for found in TOKEN.finditer(text):
        if found[0] in ("(", "[", "{", r"\{"):
            depth += 1
        elif found[0] in (")", "]", "}", r"\}"):
            depth -= 1
        elif found[0] == mark and depth == 0:
            pieces.append(text[begin:found.start()].strip())
            begin = found.end()
        if depth < 0:
            return [text]
    return [*pieces, text[begin:].strip()]


def enclosed(text, opening, closing):
    """Does the bracket that opens the text close at its end?"""
    if not text.startswith(opening) or not text.endswith(closing):
        return False
    inner = text[len(opening):len(text) - len(closing)]
    depth = 0
    for found in TOKEN.finditer(inner):
        depth += (found[0] in ("(", "[", "{", r"\{")) - (found[0] in (")", "]", "}", r"\}"))
        if depth < 0:
            return False
    return depth == 0


def without_brackets(text):
    """"(5)" -> "5": brackets around one thing say nothing."""
    for _ in range(LONGEST):
        if not any(enclosed(text, *pair) and len(text) > 2 and len(split(text[1:-1], ",")) == 1
                   for pair in ("()", "{}")):
            break
        text = text[1:-1].strip()
    return text


def either_sign(text):
    """"1\\pm2" -> ["1+2", "1-2"]; any other text -> [text]."""
    if text.count(r"\pm") != 1:
        return [text]
    before, after = text.split(r"\pm")
    return [before + sign + after.strip() for sign in "+-"]


def parts_of(text):
    """(kind, its parts). Only "list" and "union" have no order. A text without parts is a list of
    one."""
    if found := MATRIX.fullmatch(text):
        rows = [row.split("&") for row in found[2].strip("\n").split("\n")]
        shape = [len(row) for row in rows]
        return f"matrix {shape}", [part.strip() for row in rows for part in row]
    if len(pieces := split(text, r"\cup")) > 1:
        return "union", pieces
    if enclosed(text, r"\{", r"\}"):
        return parts_list(text[2:-2])
    for opening in "([":
        for closing in ")]":
            if enclosed(text, opening, closing):
                return opening + closing, split(text[1:-1], ",")
    return parts_list(text)


def parts_list(text):
    pieces = split(text, ";")
    pieces = split(text, ",") if len(pieces) == 1 else pieces
    if THOUSANDS.fullmatch(text) and any(LEADING_ZERO.match(piece) for piece in pieces):
        pieces = [text]  # 12,000 is one number; 128,256 may be two
    return "list", [part for piece in pieces for part in either_sign(piece)]


# ---- equal? ----

BASE = re.compile(r"-?[0-9A-Fa-f.]+_(?:[0-9]|\{[^{}]*\})")  # 52_8
COMMANDS = set("""frac sqrt pi infty pm mp sin cos tan cot sec csc arcsin arccos arctan sinh cosh
    tanh log ln exp le ge ne lt gt binom div alpha beta gamma delta epsilon theta lambda mu nu phi
    psi rho sigma tau omega lfloor rfloor lceil rceil in cup cap emptyset""".split())
PLAIN = re.compile(r"[-+*/^_=<>!|()\[\]{}.,0-9a-zA-Z\\ ]+")
COMMAND = re.compile(r"\\([a-zA-Z]+|.)")
# A power or a factorial that is too large to work out, and a name of several letters.
ENDLESS = re.compile(r"\^.\^|\^\{[^{}]*\^\{?[^{}]*\^|[0-9]\^\{[0-9]+\^|\^[-+(]*[0-9]{5}"
                     r"|\^\{[^{}]*[0-9]{5}|\*\*|[0-9]{5}\)*!|!\)?!|[a-zA-Z]{5}|__")


def open_questions(gold, said, depth=0):
    """What is left to ask before two normal texts are equal. []: nothing. None: they differ. Else
    [(some of gold, some of said)], texts of which each must find an equal one."""
    gold, said = without_name(gold, said)
    if bool(RELATION.search(gold)) != bool(RELATION.search(said)):
        gold, said = as_interval(gold), as_interval(said)
    (gold, unit), (said, other) = split_unit(gold), split_unit(said)
    gold, said = without_brackets(gold), without_brackets(said)
    if not gold or not said or (unit and other and unit != other):
        return None
    if gold == said:
        return []
    values = number(gold), number(said)
    if None not in values and (values[0] == values[1] or stands_for(gold, said, *values)):
        return []
    kind, parts = parts_of(gold)
    kind_said, parts_said = parts_of(said)
    if kind != kind_said or len(parts) != len(parts_said) or len(parts) > MOST_PARTS:
        return None
    if parts == [gold] and parts_said == [said]:
        return None if None not in values else leaf(gold, said)
    if depth == DEEPEST:
        return None
    compare = in_any_order if kind in ("list", "union") else in_order
    return compare(parts, parts_said, depth + 1)


def stands_for(gold, said, value, value_said):
    """A reference of six or more decimal places was rounded (0.6666666667): what it stands for
    meets it (2/3), and what rounds it to six places or more."""
    if not re.fullmatch(DECIMAL, gold):
        return False
    shown = len(said.partition(".")[2]) if re.fullmatch(DECIMAL, said) else LONG_ENOUGH
    near = abs(value - value_said) <= abs(value) / 10**5
    return near and shown >= LONG and rounds(value_said, shown, value)


def in_order(golds, saids, depth):
    left = []
    for gold, said in zip(golds, saids):
        found = open_questions(gold, said, depth)
        if found is None:
            return None
        left += found
    return left


def in_any_order(golds, saids, depth):
    """What is equal without asking is paired first. The rest is one question."""
    saids, rest = list(saids), []
    for gold in golds:
        found = [open_questions(gold, said, depth) for said in saids]
        if [] in found:
            saids.pop(found.index([]))
        elif all(questions is None for questions in found):
            return None
        else:
            rest.append(gold)
    return [(rest, saids)] if rest else []


def leaf(gold, said):
    """Two texts without parts, not both of them numbers."""
    if WORDS.fullmatch(gold) or WORDS.fullmatch(said):
        return [] if bare_words(gold) == bare_words(said) else None
    if BASE.fullmatch(gold) or BASE.fullmatch(said):
        return None
    if len(gold) == len(said) == 1 or gold.count("=") != said.count("="):
        return None
    if not may_ask(gold) or not may_ask(said) or variables(gold) != variables(said):
        return None
    return [([gold], [said])]


def bare_words(text):
    """"\\text{even}" and "Even" -> "even"."""
    return text.removeprefix(r"\text{").removesuffix("}").lower()


def variables(text):
    """The letters of a formula, but for the constants e and i. Equal formulas have the same."""
    return set(re.findall("[a-zA-Z]", COMMAND.sub("", text))) - {"e", "i"}


def may_ask(text):
    """May the library see this? Only short formulas of a few commands: no integral, sum or limit,
    no text, no names that mean something to Python or sympy."""
    if len(text) > LONGEST or not PLAIN.fullmatch(text):
        return False
    if not set(COMMAND.findall(text)) <= COMMANDS:
        return False
    return not ENDLESS.search(COMMAND.sub(" ", text))


def judge(gold, reply, ask):
    """(is the last box of the reply equal to the reference, is there a box). `ask` answers what is
    left: ask(questions) -> bool. Never raises."""
    said = last_box(reply)
    if said is None:
        return False, False
    if len(said) > max(LONGEST, 2 * len(gold)):
        return False, True
    left = open_questions(normal(gold), normal(said))
    return left is not None and (not left or ask(left)), True
