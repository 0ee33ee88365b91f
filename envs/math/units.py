"""An answer and its unit: "5\\text{cm}^2" -> "5", "cm^2". Texts are those of answers.normal()."""
import re

UNITS = {  # the one name of a unit -> its other names; an s at the end is taken away before
    "": "unit", "degree": "deg", "dollar": "usd", "percent": "", "cent": "", "mm": "millimeter",
    "cm": "centimeter centimetre", "meter": "metre m", "km": "kilometer kilometre", "mile": "mi",
    "inch": "inche", "ft": "foot feet", "yard": "yd", "hour": "hr h", "minute": "min",
    "second": "sec s", "day": "", "week": "", "month": "", "year": "", "kg": "kilogram", "gram": "",
    "lb": "pound", "ounce": "oz", "liter": "litre", "gallon": "", "mile/hour": "mph",
    "km/hour": "kph"}
NAMES = {name: unit for unit, names in UNITS.items() for name in (unit, *names.split())}
KNOWN = "|".join(sorted((name for name in NAMES if len(name) > 1), key=len, reverse=True))
ALL_TEXT = re.compile(r"\\text\{([^{}]*)\}")
WORDS = re.compile(r"[a-zA-Z]{3,}|\\text\{[a-zA-Z]{2,}\}")
EXPONENT = r"[2-9]|\{-[0-9]\}"
POWER = rf"(?:\^({EXPONENT}))?"
MORE = rf"((?:[*/]?\\text\{{[a-zA-Z./]+\}}(?:\^(?:{EXPONENT}))?)*)"  # m/s
PART = re.compile(rf"([*/]?)\\text\{{([a-zA-Z./]+)\}}{POWER}")  # one of MORE
PER = re.compile(r"/|(?<=[a-z])per(?=[a-z])")
TEXT_UNIT = re.compile(rf"(.+?)\\text\{{([a-zA-Z./]+)\}}{POWER}{MORE}")
PER_UNIT = rf"(?:/(?:{KNOWN}|[hs]))?"  # km/h
PLAIN_UNIT = re.compile(
    rf"(.*[0-9)}} ])((?:square|cubic|sq)?(?:{KNOWN})s?{PER_UNIT}|(?<=[0-9] |.[0-9])m/s){POWER}()")
# What a person counts, with no letter before it: 5 apples. Not 5 thirds, not 5 dozen.
THINGS = re.compile(
    r"([^a-zA-Z\\]*[0-9])"
    r"(?![a-z]*(?:half|halves|third|quarter|fourth|fifth|sixth|eighth|ninth|nth|elfth|ieth|undred"
    r"|ousand|illion|dozen|score|pair|couple|lakh|crore|gross|googol|minus|plus|times|cos))"
    r"([a-z]{4,}s)()()", re.IGNORECASE)
SCALE = r"(.+?)(?:\^\\circ(?:\\text\{ ?LETTER ?\}| ?LETTER)|\\text\{\^\\circ ?LETTER\})"
SIGNS = (("percent", re.compile(r"(.+?)\\?%")),
         ("celsius", re.compile(SCALE.replace("LETTER", "C"))),
         ("fahrenheit", re.compile(SCALE.replace("LETTER", "F"))),
         ("degree", re.compile(r"(.+?)\^\\circ")),
         ("dollar", re.compile(r"(?=-?\\?\$)(-?)\\?\$([0-9.].*)", re.DOTALL)))


def split_unit(text):
    """"5\\text{cm}^2" -> ("5", "cm^2"); "5" -> ("5", "")."""
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1]
    if (found := ALL_TEXT.fullmatch(text)) and not WORDS.fullmatch(text):
        text = found[1]
    for unit, pattern in SIGNS:
        if found := pattern.fullmatch(text):
            return "".join(found.groups()), unit
    text = text.replace(r"\$", "").replace("$", "")
    found = TEXT_UNIT.fullmatch(text) or PLAIN_UNIT.fullmatch(text) or THINGS.fullmatch(text)
    if not found:
        return text, ""
    more = PART.sub(lambda m: (m[1] or "*") + unit_name(m[2], m[3]), found[4])
    return found[1].strip(), unit_name(found[2], found[3]) + more


def unit_name(words, power):
    """"squaremeters" -> "meter^2"."""
    words = words.lower().replace(".", "")
    for prefix, its in (("square", "2"), ("sq", "2"), ("cubic", "3")):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), its
            break
    parts = [part.removesuffix("s") if len(part) > 2 else part for part in PER.split(words)]
    if not all(part in NAMES for part in parts):  # a word that happens to hold a "per"
        parts = [words.removesuffix("s") if len(words) > 2 else words]
    name = "/".join(NAMES.get(part, part) for part in parts)
    name = NAMES.get(name, name)
    return f"{name}^{power}" if power and name else name
