"""Pages of runs: what they hold, hostile text, and a real browser, where this machine has one."""
import base64
import dataclasses
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import pytest

import grpo
import pages
import run
import sample
import tokenizer
import train
from conftest import MOVING
from lib import page as html_page

HOSTILE = ("</script><script>document.title='x'</script><img src=x onerror=document.title='x'>"
           "{{data}} \" ' & <!-- \x00\x1b[2J\u202eevil \ud800 العربية עברית 漢字 " + "M" * 200)
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Elements and texts of a page; every one that opens must close, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.scripts, self.shown = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        inside = self.open[-1] if self.open else ""
        (self.scripts if inside == "script" else self.shown).append(text)

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def check_page(text):
    """What is true of every page -> Reader"""
    found = Reader(text)
    assert len(text.encode()) < 2_000_000 and found.of("html") == [{"lang": "en"}]
    assert len(found.of("script")) == 2 and not any("src" in x for _, x in found.elements)
    assert not re.search(r"@import|url\(|eval\(|innerHTML|document\.write", text.split("<body")[0])
    assert not re.search(r"eval\(|innerHTML|document\.write", found.scripts[-1])
    assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
    assert all(x["href"].startswith("#") for x in found.of("a"))
    for tag in ("link", "img", "iframe", "object", "base", "form"):
        assert not found.of(tag)
    ids = [x["id"] for _, x in found.elements if "id" in x]
    assert len(ids) == len(set(ids)) and all(x["href"][1:] in ids for x in found.of("a"))
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    cells = [x for x in found.of("article")]
    stops = [x for x in found.of("span") if x.get("tabindex") == "0"]
    assert len(stops) <= len(cells)  # one stop of the Tab key for each episode
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return found


# ---- pages of runs ----

@pytest.mark.parametrize("method", train.METHODS)
def test_every_method_has_a_page(command, capsys, method):
    assert command(*MOVING[method])[0] == 0
    before = Path("o/config.json").read_bytes()
    capsys.readouterr()
    assert sample.main(["o", "--n", "2", "--html", "p.html"]) == 0
    assert "p.html: " in capsys.readouterr().out
    assert not Path("p.html.tmp").exists() and Path("o/config.json").read_bytes() == before
    found = check_page(Path("p.html").read_text())
    shown = "".join(found.shown)
    assert f"train.py--method{method}" in shown and "--seed0" in shown.replace(" ", "")
    assert "update 4" in shown and found.of("svg")
    told = json.loads(found.scripts[0])
    chains = {"tandem": 2 * 2 * 3, "worldmodel": 0}.get(method, 2 * 2)
    assert len(told["chains"]) == chains
    tokens = [x for x in found.of("span") if "data-n" in x]
    assert len(tokens) == sum(map(len, told["chains"])) and (tokens or method == "worldmodel")
    for _, _, logp, rather in (t for chain in told["chains"] for t in chain):
        assert max(logp) <= 0 and [len(best) for best in rather] == [3, 3]
        assert all(0 <= word < len(told["words"]) for best in rather for word, _ in best)
    if method in ("atod", "opd"):
        assert shown.count("log p: student") == 2 * 2 * 3 and "Annealing" in shown
    if method == "tandem":
        assert any("junior" in x["class"].split() for x in tokens)
    if method == "worldmodel":
        assert "What leaks" in shown and "nothing leaks, to the last bit" in shown


@dataclasses.dataclass
class Mine(grpo.Config):
    """An algorithm of one's own"""
    method = "mine"
    boldness: float = 0.5 # of the update


def test_a_method_of_ones_own_runs_resumes_and_has_a_page(command, capsys, monkeypatch):
    monkeypatch.setitem(train.METHODS, "mine", (grpo, Mine))
    like_grpo = [x for x in MOVING["grpo"] if x not in ("--method", "grpo")]
    assert command("--method", "mine", "--boldness", "0.25", *like_grpo)[0] == 0
    assert json.loads(Path("o/config.json").read_text())["boldness"] == 0.25
    assert command("--resume")[0] == 0
    assert sample.main(["o", "--n", "1", "--html", "p.html"]) == 0
    assert "mine on guess" in Path("p.html").read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train.main(["--method", "mine", "--help"])
    assert "of the update [0.5]" in capsys.readouterr().out
    monkeypatch.setattr(Mine, "method", "grpo")  # as copied, and forgotten
    code, _, err = command("--method", "mine")
    assert code == 2 and "METHODS in train.py says 'mine'" in err


@pytest.mark.parametrize("formulation", ["stateless", "leaky"])
def test_a_world_model_of_another_formulation_has_one_too(command, formulation):
    assert command("--method", "worldmodel", "--formulation", formulation)[0] == 0
    assert sample.main(["o", "--n", "2", "--html", "p.html"]) == 0
    shown = "".join(check_page(Path("p.html").read_text()).shown)
    assert ("Next state" in shown) == (formulation == "leaky")
    assert "another history" in shown and "nothing leaks" not in shown


def test_probabilities_on_a_page_are_those_of_the_loss(command):
    assert command(*MOVING["tandem"])[0] == 0
    _, r = train.reopen("o")
    (_, _, rows, _, _), *_ = pages.plays(r, 1)
    for model in r.team.sources:
        wanted = grpo.score(model, rows, r.cfg)[0]
        found, = pages.opinion(model, rows, r.cfg, 100)
        assert list(found) == rows.mask[0].nonzero()[:, 0].tolist()
        for t, (logp, best) in found.items():
            assert abs(logp - wanted[t]) < 1e-4
            assert best == sorted(best, key=lambda x: -x[1]) and sum(p for _, p in best) <= 1.001
    assert len(pages.opinion(model, rows, r.cfg, 3)[0]) == 3  # of a long chain the first tokens


def test_a_checkpoint_alone_has_a_page(command):
    assert command(*MOVING["grpo"])[0] == 0
    Path("alone").mkdir()
    Path("o/ckpt.pt").rename("alone/x.pt")
    assert sample.main(["alone/x.pt", "--n", "1", "--temperature", "0", "--html", "p.html"]) == 0
    shown = "".join(check_page(Path("p.html").read_text()).shown)
    assert "temperature 0" in shown and "update 4" in shown and "Final table" not in shown


@pytest.mark.parametrize("place", ["nowhere/p.html", "o", "o/ckpt.pt/p.html", "/dev/null"])
def test_a_page_that_cannot_be_written_is_one_line(command, capsys, place):
    assert command(*MOVING["grpo"])[0] == 0
    capsys.readouterr()
    assert sample.main(["o", "--html", place]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: cannot write {place} (") and err.count("\n") == 1


def test_a_disk_that_fills_and_a_page_too_large_are_one_line_each(command, capsys, monkeypatch):
    assert command(*MOVING["grpo"])[0] == 0
    capsys.readouterr()
    Path("p.html").write_text("the old page")
    monkeypatch.setattr(pages, "LARGEST", 1000)
    assert sample.main(["o", "--n", "1", "--html", "p.html"]) == 2
    assert "fewer tasks with --n" in capsys.readouterr().err

    def full(path, text):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(pages, "LARGEST", 10**6)
    monkeypatch.setattr(run, "write", full)
    assert sample.main(["o", "--n", "1", "--html", "p.html"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("p.html").read_text() == "the old page"


def test_html_is_of_runs_only():
    with pytest.raises(SystemExit):
        sample.main(["--env", "guess", "--play", "--html", "p.html"])


# ---- text of any kind ----

def tokens_of(texts, team):
    return [{"text": text, "senior": i % 3 < 2 or not team, "logp": [-0.1 * i, -float(i)],
             "rather": [[(text, 0.5), ("b", 0.25), ("c", 0.1)]] * 2}
            for i, text in enumerate(texts)]


def made_up(method="tandem", text="word", texts=("5", "-", "1", "=", "4", "\n", "#", "4")):
    """A page without a run. text: what world, options and titles say; texts: tokens."""
    readers = {"atod": ["student", "teacher"], "tandem": ["senior", "junior"]}.get(method)
    part = {"said": tokens_of(texts, method == "tandem"), "cut": 2}
    if method == "atod":
        part["weights"] = {"w": 0.5, "d": 1.0, "h": 0.1}
    cells = [{"title": f"{when} training: {text}", "won": when == "After", "notes": [text],
              "parts": [{"heard": text}, part, {"heard": text}, part]}
             for when in ("Before", "After")]
    marks = [(text, kind) for kind in html_page.MARKS]
    step = {"action": text, "text": text, "truth": text, "observation": marks, "f1": 0.5,
            "state": marks, "next": marks}
    swap = {"action": text, "truth": text, "other": text, "leak": 0.5,
            "rows": [{"name": text, "text": text, "observation": marks, "f1": 0.5}]}
    world = {"formulation": text, "has_state": True, "history": [("", text), (text, text)],
             "steps": [step] * 3, "swap": swap}
    shown = {"worlds": [world]} if method == "worldmodel" else {
        "readers": readers, "tasks": [{"task": 0, "cells": cells}]}
    return html_page.document({
        "method": method, "options": {"env": text, "seed": 0, "data": text}, "step": 4,
        "comments": {"env": text}, "command": text, "drawn": text, "split": "test",
        "temperature": 1.0, "charts": [{"title": text, "y": text, "lines": {
            text: [(1, 0.5), (2, 0.25)], "b": [(1, -3.0)]}}],
        "table": {"n": 4, "columns": {text: {text: "0.500 +- 0.1"}}}, **shown})


@pytest.mark.parametrize("method", ["tandem", "atod", "worldmodel"])
def test_hostile_text_stays_text(method):
    plain = check_page(made_up(method))
    found = check_page(made_up(method, HOSTILE, [HOSTILE] * 8))
    tags = [[tag for tag, _ in x.elements if tag != "span"] for x in (plain, found)]
    assert tags[0] == tags[1]  # a command has a span for each of its words
    shown = "".join(found.shown)
    assert "</script><script>document.title='x'</script>" in shown  # to be read, and no more
    assert "\ufffd[2J\ufffdevil" in shown and "العربية" in shown
    if method != "worldmodel":
        assert "</script><script>" in json.loads(found.scripts[0])["words"][0]


def test_a_token_can_be_seen_whatever_it_is():
    seen = {" a": "␣a", "\n": "↵", "  ": "␣␣", "": "∅", "\t": "⇥", "\x07": "\ufffd", "a b": "a b"}
    assert {text: html_page.visible(text) for text in seen} == seen
    assert html_page.clean("\u2066\u202e\ud800\r\n") == "\ufffd\ufffd\ufffd\ufffd\n"


def test_the_bytes_of_a_character_are_one_token_of_a_page():
    tok = tokenizer.train(["5-1=4\n#4"], 260)
    ids = [*tok.encode("5é漢\n"), tok.end_id]
    assert len(ids) == 1 + 2 + 3 + 1 + 1
    mine = pages.whole(tok, ids, [True] * 8, range(8))
    assert mine == [("5", [0]), ("é", [1, 2]), ("漢", [3, 4, 5]), ("\n", [6]), ("■", [7])]
    two = pages.whole(tok, ids, [True, True, *[False] * 6], range(8))  # both wrote a part of it
    assert [text for text, _ in two][:2] == ["5", "\ufffd"]
    assert [t for _, places in two for t in places] == list(range(8))
    noise = pages.whole(tok, [0xff] * 9 + ids[:1], [True] * 10, range(10))
    assert [t for _, places in noise for t in places] == list(range(10))


def test_curves_have_round_ticks_and_leave_out_what_is_no_number():
    lines = [{"step": i, "reward": None if i == 3 else i / 10, "success": True, "kappa": 1.0}
             for i in range(1, 1000)]
    reward, annealing = pages.charts(lines)
    points = reward["lines"]["reward, training tasks"]
    assert list(reward["lines"]) == ["reward, training tasks"] and len(points) <= pages.POINTS
    assert points[0] == (pytest.approx((1 + 2 + 4 + 5 + 6) / 5), pytest.approx(0.36))
    assert annealing["title"] == "Annealing" and pages.charts([]) == []
    assert html_page.ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert html_page.ticks(-7, 20) == [-5, 0, 5, 10, 15, 20] or html_page.ticks(-7, 20)[0] >= -7
    for points in ([(1, 0.0)], [(5, -2.5)], [(1, 1e12), (2, -1e12)], [(1, 1e-12), (2, 0)]):
        assert "polyline" in html_page.chart("t", "y", {"a": points})


def luminance(colour):
    parts = [x / 255 for x in colour]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2])  # light, dark, print
def test_every_text_can_be_told_from_its_ground(scheme):
    css = Path(html_page.HERE, "page.html").read_text()
    block = re.findall(r":root \{([^}]*--shade[^}]*)\}", css)[scheme]
    colours = {}
    for name, value in re.findall(r"--(\w+): (#\w+|\d+ \d+ \d+);", block):
        digits = value[1:] if len(value) != 4 else "".join(2 * x for x in value[1:])
        colours[name] = tuple(map(int, value.split())) if value[0] != "#" else tuple(
            bytes.fromhex(digits))
    for text in ("ink", "faint", "senior", "junior", "link"):
        for ground in ("paper", "card"):
            if text in colours:
                assert contrast(colours[text], colours[ground]) >= 4.5
    for text in ("ink", "senior", "junior"):  # on the strongest surprise
        assert contrast(colours[text], colours["shade"]) >= 4.5
    for line in ("senior", "junior", "third", "fourth"):  # curves
        assert contrast(colours[line], colours["paper"]) >= 3


# ---- a real browser, by chromedriver's plain HTTP ----

class Browser:
    """A headless Chromium that is told what to do through the DevTools."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.at = f"http://127.0.0.1:{port}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 f"--user-data-dir={folder}"]
        how = {"goog:chromeOptions": {"args": flags, "binary": shutil.which("chromium")},
               "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            for _ in range(100):
                try:
                    self.ask("/status")
                    break
                except OSError:
                    time.sleep(0.1)
            found = self.ask("/session", capabilities={"alwaysMatch": how})
            self.at += f"/session/{found['sessionId']}"
        except BaseException:
            self.driver.kill()
            raise

    def ask(self, path, **body):
        data = json.dumps(body).encode() if body or path != "/status" else None
        request = urllib.request.Request(self.at + path, data,
                                         {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def devtools(self, cmd, **params):
        return self.ask("/goog/cdp/execute", cmd=cmd, params=params)

    def open(self, path, width=1280, height=900, scheme="light", media="", scale=1):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=scale, mobile=width < 500)
        self.devtools("Emulation.setFocusEmulationEnabled", enabled=True)
        self.devtools("Emulation.setEmulatedMedia", media=media, features=[
            {"name": "prefers-color-scheme", "value": scheme}])
        self.ask("/url", url=Path(path).resolve().as_uri())

    def run(self, script, *args):
        return self.ask("/execute/sync", script=script, args=list(args))

    def press(self, *keys):
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                self.devtools("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                              windowsVirtualKeyCode={"Tab": 9, "Escape": 27}.get(key, 0))

    def console(self):
        return [line["message"] for line in self.ask("/se/log", type="browser")]

    def picture(self, path, whole=False):
        found = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def quit(self):
        try:
            request = urllib.request.Request(self.at, method="DELETE")
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20)
        finally:
            self.driver.terminate()
            self.driver.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("no chromium and chromedriver (Debian: apt-get install chromium "
                    "chromium-driver)")
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.quit()


@pytest.fixture
def shown(browser, tmp_path):
    """shown(text, ...): the page is open in the browser, and nothing is on the console."""
    def go(text, **how):
        path = tmp_path / "p.html"
        path.write_text(text)
        browser.open(path, **how)
        assert browser.console() == []
        return browser
    return go


PANEL = """const panel = document.getElementById('panel');
return [panel.hidden, ...[...panel.querySelectorAll('#what, tbody tr')].map(x => x.innerText)]"""
AT = "return document.activeElement.dataset.n ?? document.activeElement.tagName"
KINDS = ["tandem", "atod", "worldmodel"]


@pytest.mark.parametrize("width", [320, 360, 1920])
@pytest.mark.parametrize("method", KINDS)
def test_a_page_is_never_wider_than_the_screen(shown, method, width):
    for text in (made_up(method), made_up(method, HOSTILE, [HOSTILE, "\n", "x" * 300])):
        b = shown(text, width=width)
        b.run("document.querySelector('details').open = true;"
              "document.querySelector('[data-n]')?.focus()")
        wide, screen = b.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= screen == width
        size = b.run("return parseFloat(getComputedStyle(document.documentElement).fontSize)")
        assert size == pytest.approx(24 if width == 1920 else 16, abs=0.1)


@pytest.mark.parametrize("method", ["tandem", "atod"])
def test_arrow_keys_move_and_the_panel_shows_both_probabilities(shown, method):
    b = shown(made_up(method), width=360, height=640)
    first, second = ("senior", "junior") if method == "tandem" else ("student", "teacher")
    assert b.run(PANEL)[0] is True
    stops = []
    for _ in range(40):
        b.press("Tab")
        stops.append(b.run(AT))
        if stops[-1] == "0":
            break
    assert stops[-1] == "0" and len(stops) < 12
    hidden, what, one, two = b.run(PANEL)
    assert not hidden and "5" in what and f"written by the {first}" in what
    assert first in one and second in two and "100 %" in one and "100 %" in two
    b.press("ArrowRight", "ArrowRight")
    assert b.run(AT) == "2"
    _, what, one, two = b.run(PANEL)
    assert "= 1.80" in what and "82 %" in one and "14 %" in two and "2.00 nats" in two
    assert f"written by the {'junior' if method == 'tandem' else 'student'}" in what
    b.press("ArrowDown")  # the token below it: "#4" stands under "5-"
    assert b.run(AT) == "7"
    b.press("ArrowUp")
    assert b.run(AT) == "1"
    b.press("End")
    assert b.run(AT) == "15"  # the last one of the second turn
    b.press("ArrowRight")  # and there it stays
    assert b.run(AT) == "15"
    assert b.run("const box = document.activeElement.getBoundingClientRect(); return box.bottom <= "
                 "document.getElementById('panel').getBoundingClientRect().top")
    b.press("Home", "ArrowLeft")
    assert b.run(AT) == "0"
    b.press("Tab")  # one stop an episode: the next is of another
    assert b.run("return document.activeElement.closest('[data-chain]').dataset.chain") == "1"
    b.press("Escape")
    assert b.run(PANEL)[0] is True


def test_a_pointer_and_a_finger_show_the_panel_too(shown):
    b = shown(made_up())
    b.run("document.querySelectorAll('[data-n]')[3].scrollIntoView({block: 'center'})")
    x, y = b.run("const box = document.querySelectorAll('[data-n]')[3].getBoundingClientRect();"
                 "return [box.left + box.width / 2, box.top + box.height / 2]")
    b.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert "=" in b.run(PANEL)[1]
    b.run("document.getElementById('close').click()")
    assert b.run(PANEL)[0] is True
    b.devtools("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    b.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    time.sleep(0.5)
    assert b.run(AT) == "3" and b.run(PANEL)[0] is False


@pytest.mark.parametrize("method", KINDS)
def test_hostile_text_does_not_run(shown, method):
    b = shown(made_up(method, HOSTILE, [HOSTILE] * 3))
    b.run("document.querySelectorAll('[data-n]').forEach(x => x.focus())")
    assert b.run("return document.title") != "x"
    assert b.run("return [document.scripts.length, document.images.length]") == [2, 0]
    assert "<img src=x" in b.run("return document.body.innerText")
    assert b.console() == []


def test_the_policy_would_stop_a_script_that_slipped_through(browser, tmp_path):
    path = tmp_path / "p.html"
    path.write_text(made_up().replace("<main", "<script>document.title='x'</script><main", 1))
    browser.open(path)
    assert browser.run("return document.title") != "x"
    assert "Content Security Policy" in " ".join(browser.console())


def test_the_colours_follow_the_scheme(shown):
    ground = "return getComputedStyle(document.body).backgroundColor"
    light, dark = (shown(made_up(), scheme=x).run(ground) for x in ("light", "dark"))
    assert light == "rgb(255, 255, 255)" and dark == "rgb(18, 21, 26)"
    b = shown(made_up(), scheme="dark", media="print")
    assert b.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    ink = b.run("return getComputedStyle(document.querySelector('.t')).color")
    assert ink == "rgb(10, 79, 158)"


def test_writing_from_right_to_left_keeps_its_order_and_its_line(shown):
    b = shown(made_up(texts=["مرحبا", " بالعالم", "\n", "5", "-", "1"]))
    xs = b.run("return [...document.querySelectorAll('[data-n]')].map("
               "x => x.getClientRects()[0].left)")
    assert xs[1] < xs[0]  # the second Arabic word stands to the left of the first
    assert xs[3] < xs[4] < xs[5]  # and the sum below runs as sums do
