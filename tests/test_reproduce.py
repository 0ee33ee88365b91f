"""The comparison of arms: intervals, verdicts and tables on numbers made up by hand, that every arm is
a command, and that the pictures are well-formed. No training."""
import json
import random
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

import claims
import claims.atod
import claims.chains
import claims.curves
import claims.plot
import claims.realworlds
import claims.strip
import claims.svg
import claims.tandem
import claims.worldmodel
import envs
import imagine
import reproduce
import train
import worldmodel
from claims import interval, verdict
from claims.worldmodel import CLAIMS, COMPARISONS, EQUAL, WORLD_TABLES, WORLDS
from conftest import REPO, tiny_world
from envs import record

FORMULATIONS = tuple(imagine.FORMULATIONS)
USEFUL = ("usefulness", "ceiling", "all facts", "floor")  # of claims/usefulness.py


def options(*argv):
    """What train.py makes of a command -> the module of its method, its Config"""
    return train.read_options([str(x) for x in argv])


# ---- intervals and verdicts ----

def test_an_interval_by_hand():
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0)
    # by a table of Student's t, two seeds
    assert interval([1.0, 3.0]) == pytest.approx((2, 12.706 * math.sqrt(2) / math.sqrt(2)))
    assert interval([1, 2, 3]) == pytest.approx((2, 4.303 / math.sqrt(3)))
    assert interval(list(range(11))) == pytest.approx((5, 2.228), rel=1e-3)  # 2.228 sqrt(11) / sqrt(11)
    assert interval([0.7])[0] == 0.7 and math.isnan(interval([0.7])[1])
    t = list(claims.T_95.values())
    assert all(a > b for a, b in zip(t, t[1:])) and list(claims.T_95) == list(range(2, 11))


@pytest.mark.parametrize("differences, better, as_good", [
    ([0.1, 0.1, 0.1], "yes", "unclear"), ([-0.1, -0.1, -0.1], "no", "no"),
    ([0.0, 0.0, 0.0], "unclear", "yes"),
    ([0.01, 0.01, 0.01], "yes", "yes"), ([-0.01, -0.01, -0.01], "no", "yes"),  # clear, and small
    ([0.03, -0.03, 0.0], "unclear", "unclear"), ([0.2, 0.0, 0.1], "unclear", "unclear"),  # 0.1 +- 0.248
    ([0.02] * 3, "yes", "unclear"), ([-0.02] * 3, "no", "unclear"),  # two points are no longer as good
    ([0.5], "unclear", "unclear"), ([0.0], "unclear", "unclear")])  # one seed says nothing
def test_verdicts_by_hand(differences, better, as_good):
    assert verdict(differences, "better") == better
    assert verdict(differences, "as good") == as_good


def test_the_margin_of_as_good_can_be_chosen():
    assert verdict([0.04] * 3, "as good", margin=0.05) == "yes"
    assert verdict([-0.06] * 3, "as good", margin=0.05) == "no"


def test_p_values_say_yes_where_the_interval_does():
    for freedom, t in ((2, 4.303), (9, 2.262)):
        assert 2 * claims.tail(t, freedom) == pytest.approx(0.05, abs=1e-4)
        assert claims.quantile(freedom) == pytest.approx(t, abs=1e-3)
    assert claims.quantile(19) == pytest.approx(2.093, abs=1e-3)  # twenty seeds
    assert claims.tail(0, 5) == pytest.approx(0.5)
    rng, yes = random.Random(0), []
    for _ in range(300):
        shift = rng.choice([0, 0.01, 0.05])
        found = [rng.gauss(shift, 0.02) for _ in range(rng.choice([3, 6, 10]))]
        for kind in ("better", "as good"):
            held = claims.verdict(found, kind) == "yes"
            assert (claims.p_value(found, kind) < 0.05) == held
            yes.append(held)
    assert 50 < sum(yes) < 550
    assert claims.p_value([0.5], "better") == 1.0
    assert claims.p_value([0.1, 0.1, 0.1], "better") < 1e-6


def test_holms_correction_by_hand():
    assert claims.holm([0.01, 0.04, 0.03]) == [True, False, False]  # 0.03 > 0.05 / 2
    assert claims.holm([0.02, 0.01, 0.04]) == [True, True, True]
    assert claims.holm([0.02, 0.3, 0.02]) == [False] * 3  # 0.02 > 0.05 / 3
    assert claims.holm([]) == []


def test_a_bootstrap_is_as_lopsided_as_the_seeds():
    low, high = claims.bootstrap([0.1, 0.1, 0.1, 0.9])
    assert low == pytest.approx(0.1) and 0.6 < high < 0.9
    assert claims.bootstrap([0.3] * 5) == pytest.approx((0.3, 0.3))


def test_runs_side_by_side_keep_their_names_and_say_how_long_it_takes(tmp_path, capsys):
    def folder_of(a, b):
        return str(tmp_path / b)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/result.json").write_text("{}")  # it is done
    cells = [(2, "x"), (3, "y"), (1, "z")]
    found = claims.side_by_side(lambda a, b: a * b, cells, 2, folder_of, 600)
    assert found == {(2, "x"): "xx", (3, "y"): "yyy", (1, "z"): "z"}
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "3 runs, 1 of them are done; the others take about 10 minutes"
    assert sorted(line[:7] for line in others) == ["1 of 2:", "2 of 2:"]
    assert any(line.endswith("3, y; about 0 minutes left") for line in others)
    assert claims.minutes(5399) == "90 minutes" and claims.minutes(9000) == "2.5 hours"


def test_the_rows_of_a_paper_are_decided_together():
    rows = [("T1", "a", "b", "x", "better", "1 against 2"), ("T2", "a", "b", "y", "as good", ""),
            ("T3", "a", "c", "x", "better", "")]
    sure, close, barely = [0.1, 0.11, 0.09], [0.0, 0.001, 0.0], [0.01, 0.12, 0.09]
    text = claims.decided(rows, [sure, close, barely])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [line[0] for line in lines] == ["T1", "T2", "T3"]
    assert [line[5:7] for line in lines] == [["yes", "yes"], ["yes", "yes"], ["unclear", "unclear"]]
    assert lines[0][1:3] == ["a: x better than b", "+0.100 +- 0.025"] and lines[0][7] == "1 against 2"
    one_yes = [0.07, 0.12, 0.09]  # p = .023: enough alone, not as one of three
    alone = claims.decided(rows[:1], [one_yes]).splitlines()[2]
    assert "| yes | yes |" in alone
    among = claims.decided(rows, [one_yes, barely, barely]).splitlines()[2]
    assert "| yes | unclear |" in among


# ---- world models ----

def a_result(own="strict", shift=0.0):
    """A result.json as worldmodel.report writes it, with few metrics."""
    def far(x):
        return {"obs H=1": [x, 0.01], "obs 10-25": [x / 2, 0.02], "history leak": [0.0, None]}
    # one step: no "obs 10-25"
    columns = {f"{f}, warm": {"obs H=1": [0.1, 0.0]} for f in FORMULATIONS if f != own}
    columns.update({f"{own}, warm": far(0.4), f"{own}, warm, T=1": {"obs H=1": [0.3, 0.0]},
                    f"{own}, trained": far(0.6 + shift),
                    f"{own}, trained, T=1": {"obs H=1": [0.5 + shift, 0.0]}})
    return {"n": 2, "seconds": 100.0, "update_seconds": 60.0, "columns": columns}


def test_what_is_taken_from_a_result_by_hand():
    assert claims.worldmodel.world_columns(a_result()) == {
        "warm": {"obs H=1": 0.4, "obs 10-25": 0.2, "history leak": 0.0, "T=1": 0.3},
        "trained": {"obs H=1": 0.6, "obs 10-25": 0.3, "history leak": 0.0, "T=1": 0.5,
                    "seconds": 60.0}}
    for own in FORMULATIONS:
        found = claims.worldmodel.world_columns(a_result(own))
        assert found["trained"]["obs H=1"] == 0.6 and found["warm"]["T=1"] == 0.3


def sections(text):
    """Markdown -> {title: rows of cells, without the head}"""
    found = {}
    for line in text.splitlines():
        if line.startswith("**"):
            found[line.split("**")[1]] = rows = []
        elif line.startswith("| "):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert all(len(row) == len(rows[0]) for rows in found.values() for row in rows)
    return {title: rows[1:] for title, rows in found.items()}


def everything(x):
    """Every metric there is, all of them x."""
    metrics = [m for columns in WORLD_TABLES.values() for m in columns] + [claim[2] for claim in CLAIMS]
    return {metric: x for metric in metrics}


def test_tables_have_a_row_an_arm_and_a_line_a_claim():
    names = ["strict, warm start", *WORLDS]
    arms = {arm: [everything(0.5 + 0.1 * i) for _ in range(3)] for i, arm in enumerate(names)}
    del arms["leaky"][1]["CR"]  # a metric that one seed lacks is shown of none
    found = sections(claims.worldmodel.world_tables(arms))
    assert list(found) == [*WORLD_TABLES, "claims"]
    for title, columns in WORLD_TABLES.items():
        assert [row[0] for row in found[title]] == names
        for i, row in enumerate(found[title]):
            expected = ["-" if (row[0], m) == ("leaky", "CR") else f"{0.5 + 0.1 * i:.3f} +- 0.000"
                        for m in columns]
            assert row[1:] == expected
    assert len(found["claims"]) == len(CLAIMS)  # all arms are there
    for row, (arm, other, metric, kind, paper) in zip(found["claims"], CLAIMS):
        gap = 0.1 * (names.index(arm) - names.index(other))
        question = f"{metric}, {'better' if kind == 'better' else 'as good as (2 points)'}?"
        answer = "no" if gap < 0 else "yes" if kind == "better" else "unclear"
        assert row == [arm, other, question, f"{gap:+.3f} +- 0.000", answer, paper]


@pytest.mark.parametrize("kept", [["stateless"], ["stateless", "leaky + R_sup", "strict + R_sup"],
                                  ["strict", "leaky"], list(WORLDS)])
def test_claims_about_arms_that_were_not_run_are_left_out(kept):
    arms = {arm: [everything(0.5)] for arm in kept}  # one seed
    found = sections(claims.worldmodel.world_tables(arms))
    expected = [claim for claim in CLAIMS if claim[0] in kept and claim[1] in kept]
    assert [row[:2] for row in found["claims"]] == [list(claim[:2]) for claim in expected]
    assert all(row[3:5] == ["+0.000", "unclear"] for row in found["claims"])
    assert all(len(found[title]) == len(kept) for title in WORLD_TABLES)


def test_differences_are_paired_over_seeds():
    """Seeds that differ much, arms that differ by the same within each."""
    arms = {arm: [everything(x + (0.05 if arm == "strict" else 0.0)) for x in (0.1, 0.5, 0.9)]
            for arm in ("strict", "leaky")}
    lines = sections(claims.worldmodel.world_tables(arms))["claims"]
    assert len(lines) == 3 and all(row[3:5] == ["+0.050 +- 0.000", "yes"] for row in lines)


def test_every_number_that_the_tables_ask_for_is_measured():
    """No metric is misspelt: what imagine.py measures of untrained models fills every cell that can be
    filled, and settles every claim."""
    found = {level: envs.make("house", level=level) for level in (2, 3)}
    examples = record.examples(found, range(12), "valid", "tables", future=25, past=(4, 6))
    for e in examples:
        e.future[0].action = "go hall"  # so that there is another's state
    arms = {}
    for own in FORMULATIONS:
        w = tiny_world(own, window=2)
        far = {**imagine.measure(w, examples, 25), **imagine.swap(w, examples, {})}
        near = imagine.measure(w, examples, 1)
        if own != "stateless":
            far["history leak"] = (worldmodel.largest_leak(w, examples[:2]), None)
        columns = {f"{own}, {when}{sampled}": x for when in ("warm", "trained")
                   for sampled, x in (("", far), (", T=1", near))}
        result = {"columns": columns, "seconds": 2.0, "update_seconds": 1.0,
                  **({} if own == "stateless" else {"usefulness": dict.fromkeys(USEFUL, 0.5)})}
        both = claims.worldmodel.world_columns(result)
        arms.update({arm: [both["trained"]] * 2 for arm in WORLDS if arm.startswith(own)})
        arms[f"{own}, warm start"] = [both["warm"]] * 2
    tables = sections(claims.worldmodel.world_tables(arms))
    assert len(tables["claims"]) == len(CLAIMS)
    of_states = {"CR", "well-formed", "own state", "another's state", "own - another's", "action alone",
                 "history leak", *USEFUL}
    for title, columns in WORLD_TABLES.items():
        for arm, *cells in tables[title]:
            missing = {m for m, cell in zip(columns, cells) if cell == "-"}
            expected = {"CR"} & set(columns)  # an untrained model writes no state
            if "stateless" in arm:
                expected = {m for m in columns if "state." in m or "s'" in m or m in of_states}
            if "warm start" in arm:
                expected |= {"seconds", *USEFUL} & set(columns)
            assert missing == expected < set(columns), (title, arm)  # an empty row is left out


@pytest.mark.parametrize("env", claims.realworlds.PAPER)
def test_the_tables_of_a_real_world_by_hand(env):
    wanted = claims.realworlds.columns(env).values()
    metrics = {m for column in wanted for m in column} | {m for _, m, _ in claims.realworlds.CLAIMS}
    of_states = {m for m in metrics if "state" in m or "another" in m} | {"action alone", "well-formed"}
    runs = {"stateless": 0.5, "leaky + R_sup": 0.3, "strict + R_sup": 0.6}
    arms = {}
    for arm, x in runs.items():
        held = metrics - (of_states if arm == "stateless" else set())
        arms[arm] = [{m: x + seed for m in held} for seed in (0.0, 0.01)]
    table, verdicts = ([[cell.strip() for cell in line.strip("|").split("|")]
                        for line in part.strip().split("\n")]
                       for part in claims.realworlds.table(env, arms).split("\n\n"))
    assert len({len(row) for row in table}) == 1
    assert [row[0] for row in table[2::2]] == list(runs)
    assert {row[0] for row in table[3::2]} == {"*the paper, 4B*"}
    assert table[2][1].startswith("0.505 +- 0.064 / ") and table[2][2] == table[2][7] == "-"
    assert table[6][7] == "0.605 +- 0.064"
    gap = {"leaky + R_sup": "+0.300 +- 0.000", "stateless": "+0.100 +- 0.000"}
    assert [(row[0], row[2], row[3]) for row in verdicts[2:]] == [
        (other, gap[other], "unclear" if kind == "as good" else "yes")
        for other, _, kind in claims.realworlds.CLAIMS]


# ---- every arm is a command ----

@pytest.mark.parametrize("more", ["", "--window=0"])
@pytest.mark.parametrize("arm", WORLDS)
def test_every_arm_is_a_command(arm, more, tmp_path):
    method, cfg = options("--method=worldmodel", *WORLDS[arm].split(), "--seed=3", *more.split(),
                          f"--out={tmp_path}/o", "--threads=1", "--resume")
    assert method is worldmodel and cfg.formulation == arm.split()[0].strip(",")
    assert (cfg.seed, cfg.env, cfg.method) == (3, "house", "worldmodel")
    assert cfg.flat == ("plain GRPO" in arm) and cfg.group == worldmodel.Config.group
    assert ("sup" in cfg.terms.split(",")) == (arm not in ("leaky", "strict"))


@pytest.mark.parametrize("env", claims.realworlds.PAPER)
@pytest.mark.parametrize("arm", claims.realworlds.ARMS)
def test_every_arm_on_a_real_world_is_a_command_with_the_options_that_its_table_was_made_with(arm, env):
    _, cfg = options(*claims.realworlds.command(arm, 2, env))
    assert (cfg.env, cfg.seed, cfg.formulation) == (env, 2, arm.split()[0])
    assert cfg.levels == {"textworld": "1,2", "scienceworld": "2"}[env]
    assert (cfg.steps, cfg.warm_steps, cfg.sft_rows, cfg.sft_lr) == (40, 2000, 16, 3e-3)
    assert (cfg.eval_problems, cfg.test_problems, cfg.eval_every) == (48, 128, 20)


def test_arms_differ_and_claims_are_about_them():
    found = [options("--method=worldmodel", *how.split(), "--seed", str(int(arm in EQUAL)))[1]
             for arm, how in WORLDS.items()]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    warm = {f"{f}, warm start" for f in FORMULATIONS}
    assert {name for claim in CLAIMS for name in claim[:2]} <= {*WORLDS, *warm}
    assert {arm for _, names, _ in COMPARISONS.values() for arm in names} == set(WORLDS)
    assert all(kind in ("better", "as good") and arm != other for arm, other, _, kind, _ in CLAIMS)
    assert len({claim[:3] for claim in CLAIMS}) == len(CLAIMS)
    assert len({claims.slug(arm) for arm in WORLDS}) == len(WORLDS)


def test_an_arm_of_equal_time_takes_the_seconds_of_stricts_updates():
    seconds = {"stateless": 8.0, "strict + R_sup": 120.0, "strict + R_sup, plain GRPO": 400.0}
    assert [claims.worldmodel.equal_steps(arm, seconds) for arm in EQUAL] == ["--steps=1500", "--steps=30"]
    reported = claims.read(REPO / "docs/worldmodel/tuning.json")["seconds"]
    assert all(claims.worldmodel.equal_steps(arm, reported) for arm in EQUAL)


TANDEM_CELLS = [(condition, arm) for condition, (_, arms, _) in claims.tandem.CONDITIONS.items()
                for arm in arms]


@pytest.mark.parametrize("condition, arm", TANDEM_CELLS)
def test_every_arm_of_tandem_is_a_command_too(condition, arm):
    settings = {"lr": 3e-4, **({"kl": 0.1} if "KL" in arm else {})}
    more = claims.tandem.CONDITIONS[condition][0]
    method, cfg = options(*claims.tandem.command(arm, 0, more, settings))
    assert method.__name__ == "tandem" and (cfg.p == 1) == ("GRPO" in arm)
    assert (cfg.kl > 0) == ("KL" in arm)
    assert cfg.kl_to == ("junior" if arm == "GRPO + KL to junior" else "warm")
    assert (cfg.p_end == 1) == ("annealed" in arm) and (cfg.steps == 400) == ("400" in arm)


def test_the_arms_of_tandem_differ_and_every_one_has_a_setting():
    """The settings that docs/ reports are for these arms."""
    best = claims.read(REPO / "docs/tandem/tuning.json")["best"]
    tandem = claims.tandem
    assert list(best) == list(tandem.ARMS)
    settings = tandem.settings("none of your own")
    assert {**settings, **best} == settings and set(settings) == {*best, tandem.ALONE}
    assert {*tandem.SETTING_OF, tandem.ALONE} == set(tandem.OTHERS)
    assert set(tandem.SETTING_OF.values()) <= set(best)
    every = {**tandem.ARMS, **tandem.OTHERS}
    assert len({tuple(how.split()) for how in every.values()}) == len(every) - 1
    assert every[tandem.ALONE] == every["GRPO"]  # another rate
    assert {arm for _, arms, _ in tandem.CONDITIONS.values() for arm in arms} == set(every)
    rows = (*tandem.ROWS, *tandem.FINDING, *tandem.STRICTER)
    assert {name for row in rows for name in row[1:3]} <= set(every)
    assert {row[3] for row in rows} <= set(tandem.COLUMNS)
    assert set(tandem.QUICK["plain junior"][1]) <= set(tandem.ARMS)


def test_grpo_is_tuned_alone_by_what_the_senior_does_alone(tmp_path):
    def line(lr, solo, step):
        return {"lr": lr, "solo pass@1": [solo] * 2, "step handoff pass@1": [step] * 2}
    grid = {"GRPO": [line(1e-4, 0.9, 0.1), line(3e-4, 0.8, 0.2), line(1e-3, 0.5, 0.9)]}
    claims.write(tmp_path / "tuning.json", {"best": {"GRPO": {"lr": 1e-3}}, "grid": grid})
    assert claims.tandem.settings(str(tmp_path)) == {
        "GRPO": {"lr": 1e-3}, claims.tandem.ALONE: {"lr": 1e-4}}


@pytest.mark.parametrize("arm", claims.atod.ARMS)
def test_every_arm_of_atod_is_a_command_too(arm):
    method, cfg = options(*claims.atod.ARMS[arm].split(), "--seed=3")
    assert method.__name__ == "atod" and cfg.seed == 3 and cfg.env == "house"
    assert cfg.mix == {"GRPO": "grpo", "OPD": "opd", "fixed mix": "fixed"}.get(arm, "annealed")


# ---- tuning ----

def test_the_tuning_looks_at_neighbours_in_the_learning_rate():
    """The best single point, 6e-4, stands next to a cliff."""
    lines = [{"lr": lr, "score": score} for lr, score in
             ((1.5e-4, 1.5), (3e-4, 1.7), (6e-4, 1.8), (1e-3, 0.2))]
    assert claims.choose(lines, ("lr", "kl")) == {"lr": 3e-4}
    lines += [{"lr": lr, "kl": 0.2, "score": 1.75} for lr in (1.5e-4, 3e-4)]
    assert claims.choose(lines, ("lr", "kl")) == {"lr": 1.5e-4, "kl": 0.2}


def test_the_tuning_runs_its_grid_on_valid_problems_of_other_seeds(tmp_path, monkeypatch):
    ran = []

    def trained(how, out):
        ran.append(options(*how, f"--out={out}")[1])
        after = {claims.tandem.SOLO: [ran[-1].lr, 0.1], claims.tandem.STEP: [ran[-1].kl, 0.1]}
        return {"after": after}
    monkeypatch.setattr(claims, "train", trained)
    claims.tandem.tune(str(tmp_path), 1)
    assert len(ran) == 2 * (7 * 4 + 4 * 3) == len({cfg.out for cfg in ran})
    assert all((cfg.final_split, cfg.test_problems) == ("valid", 256) for cfg in ran)
    assert [cfg.seed for cfg in ran] == [99, 100] * 40
    found = json.loads((tmp_path / "tuning.json").read_text())
    assert list(found["best"]) == list(found["grid"]) == list(claims.tandem.ARMS)
    assert found["best"]["tandem p = .5"] == {"lr": 1e-3}
    assert found["best"]["GRPO + KL to junior"] == {"lr": 1e-3, "kl": 0.5}


def test_the_tuning_of_world_models_looks_at_one_step_and_nine(tmp_path, monkeypatch):
    ran = []

    def trained(how, out):
        ran.append(options(*how, f"--out={out}")[1])
        own = ran[-1].formulation
        metrics = {"obs H=1": [ran[-1].lr, 0.1], "obs H=9": [0.5 - 3 * ran[-1].lr, 0.1]}
        return {"columns": {f"{own}, trained": metrics, f"{own}, trained, T=1": metrics},
                "update_seconds": 1.0}
    monkeypatch.setattr(claims, "train", trained)
    claims.worldmodel.tune(str(tmp_path), 1)
    assert len({cfg.out for cfg in ran}) == len(ran) == 6 * 2 * 3
    assert {(cfg.seed, cfg.final_split) for cfg in ran} == {(99, "valid"), (100, "valid")}
    found = json.loads((tmp_path / "tuning.json").read_text())
    assert found["best"] == {arm: {"lr": 1.5e-4} for arm in claims.worldmodel.TUNED}
    assert found["seconds"] == dict.fromkeys(claims.worldmodel.TUNED, 1.0)
    assert list(claims.read(REPO / "docs/worldmodel/tuning.json")["best"]) == list(found["best"])


def test_atods_tuning_looks_at_valid_houses_of_other_seeds(tmp_path, monkeypatch):
    ran = []

    def trained(how, out):
        ran.append(options(*how, f"--out={out}")[1])
        found = {"success": [ran[-1].lr, 0.1], "turns": [8.0, None]}
        return {"columns": {"after": found, "after, greedy": found}}
    monkeypatch.setattr(claims, "train", trained)
    claims.atod.tune(str(tmp_path), 1)
    assert len({cfg.out for cfg in ran}) == len(ran) == 4 * 2 * len(claims.atod.GRID)
    assert {(cfg.seed, cfg.final_split) for cfg in ran} == {(99, "valid"), (100, "valid")}
    found = json.loads((tmp_path / "tuning.json").read_text())
    assert found["best"] == {arm: {"lr": 1e-3} for arm in claims.atod.TUNED}
    assert list(claims.read(REPO / "docs/atod/tuning.json")["best"]) == list(claims.atod.TUNED)


# ---- comparisons, with results made up ----

def test_atods_table_by_hand():
    def column(x):
        return {"success": [x, 0.01], "turns": [8.0, None], "put": [x, None]}

    def result(success, teacher=0.7):
        columns = {"teacher": teacher, "teacher, greedy": teacher, "before": 0.1, "before, greedy": 0.1,
                   "after": success, "after, greedy": success + 0.05}
        return {"columns": {name: column(x) for name, x in columns.items()},
                "looks": [[0.3, 20], [0.6, 40], [0.5, 60]],
                "times": {"time_rollout": 5.0, "time_environment": 1.0, "time_update": 3.0}}
    curve = [{"zero_variance": 0.2, "A_opd": 1.0}, {"zero_variance": 0.4, "A_opd": 2.0}]
    found = claims.atod.metrics_of(result(0.8), curve)
    assert found.pop("looks") == result(0.8)["looks"]
    assert found == {"success": 0.8, "greedy": pytest.approx(0.85), "turns": 8.0, "best look": 0.6,
                     "last look": 0.5, "seconds": 8.0, "zero variance": pytest.approx(0.3), "A_opd": 1.5, "put": 0.8}
    runs = {"ATOD": (0.8, 0.82, 0.81), "OPD": (0.7, 0.71, 0.72), "GRPO": (0.5, 0.5, 0.5)}
    results = {"teacher": [claims.atod.player(result(x), "teacher") for x in runs["ATOD"]],
               **{arm: [claims.atod.metrics_of(result(x), curve) for x in xs] for arm, xs in runs.items()}}
    for run in results["GRPO"]:
        run["looks"] = [[0.1, 20], [0.2, 40], [0.5, 60]]
    text = claims.atod.table(results, [0, 1, 2])
    assert "| OPD | +0.100 +- 0.025 | yes | +0.100 +- 0.025 | yes |" in text
    assert "| teacher | +0.110 +- 0.025 | yes | +0.160 +- 0.025 | yes |" in text
    assert "| OPD | 0.710 +- 0.025 | 0.760 +- 0.025 | 8.000 +- 0.000 | 0.500 +- 0.000 |" in text
    assert "| teacher | 0.70 | - |" in text
    assert "|  | update 20 | update 40 | update 60 |" in text and "| GRPO | 0.10 | 0.20 | 0.50 |" in text
    assert "| ATOD - GRPO | +0.200 +- 0.000 | +0.400 +- 0.000 | +0.000 +- 0.000 |" in text


@pytest.mark.parametrize("seeds", [[3], [3, 4]])
@pytest.mark.parametrize("compare", [*COMPARISONS, "quick"])
def test_a_comparison_runs_its_arms_and_writes_its_table(compare, seeds, tmp_path, monkeypatch):
    quick, compare = compare == "quick", compare.replace("quick", "paper")
    ran = []

    def trained(how, out):
        ran.append(out)
        own = options(*how, f"--out={out}")[1].formulation
        Path(out).mkdir()
        metrics = {k: [x, 0.1] for k, x in everything(0.5).items() if k not in ("seconds", *USEFUL)}
        return {"columns": {f"{own}, {when}{sampled}": metrics for when in ("warm", "trained")
                            for sampled in ("", ", T=1")}, "update_seconds": 1.0}

    def called(command, log):
        assert command[:2] == ["-m", "claims.usefulness"]
        Path(command[2], "usefulness.json").write_text(json.dumps(dict.fromkeys(USEFUL, 0.25)))
    monkeypatch.setattr(claims, "train", trained)
    monkeypatch.setattr(claims, "call", called)
    monkeypatch.setattr(claims.worldmodel, "world_figure", lambda *_: None)
    monkeypatch.chdir(REPO)  # the tuning that docs/ reports
    claims.worldmodel.reproduce(str(tmp_path), seeds, 1, compare, quick)
    title, names, _ = COMPARISONS[compare]
    names = claims.worldmodel.QUICK if quick else names
    stem = "results" if compare == "paper" else compare
    found, text = json.loads((tmp_path / f"{stem}.json").read_text()), (tmp_path / f"{stem}.md").read_text()
    assert len(set(ran)) == len(ran) == len(names) * len(seeds)
    assert set(names) <= set(found["results"][title]) and "nan" not in text
    paper = compare == "paper" and not quick
    arms = found["results"][title]
    assert {arm for arm in arms if "usefulness" in arms[arm][0]} == (
        {arm for arm in names if "stateless" not in arm} if paper else set())
    assert ("| W10 |" in text) == (paper or compare == "short")
    assert ("| W1 |" in text) == (paper or quick)
    of = f", seed {seeds[0]}" if len(seeds) == 1 else " +- 95% t-interval over 2 seeds"
    assert text.startswith(f"### {title}, mean{of}")


def test_when_t_durs_weights_matter_one_factor_at_a_time(tmp_path, monkeypatch):
    ran = {}

    def trained(how, out):
        cfg = options(*how, f"--out={out}")[1]
        ran[out] = (cfg.weights, cfg.student_player, cfg.teacher_target, cfg.anneal, cfg.seed)
        found = {"success": [0.7 + 0.1 * (cfg.weights == "tdur") * cfg.anneal, 0.1], "turns": [8.0, None]}
        teacher = {"success": [cfg.teacher_target, 0.1], "turns": [8.0, None]}
        return {"columns": {"after": found, "after, greedy": found,
                            "teacher": teacher, "teacher, greedy": teacher}}
    monkeypatch.setattr(claims, "train", trained)
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(claims.plot, "pyplot", lambda: None)
    claims.atod.reproduce(str(tmp_path), [3, 4], 1, "tdur")
    assert len(ran) == len(set(ran.values())) == 6 * 2 * 2
    usual = {x[1:4] for x in ran.values()}
    base = ("careless", 0.65, 0.53)
    assert len(usual) == 6 and all(sum(a != b for a, b in zip(x, base)) <= 1 for x in usual)
    text = (tmp_path / "tdur.md").read_text()
    assert "| teacher at .8 | 0.800 +- 0.000 | 0.753" in text
    assert "| annealed to the end | 0.650 +- 0.000 | 0.800 +- 0.000 | 0.700 +- 0.000 | +0.100 +- 0.000 |" in text
    assert "| as it is | 0.650 +- 0.000 | 0.753 +- 0.000 |" in text
    assert str(tmp_path / "ATOD-3") in ran  # a run of the paper's comparison


def test_each_arm_plays_its_games_once_with_the_runs_of_the_papers_comparison(tmp_path, monkeypatch, capsys):
    ran, asked = {}, []
    won = {"random": 0.125, "expert": 1.0, "simulator": 0.875, "leaky": 0.25, "stateless": 0.5, "strict": 0.75}
    turns = {player: 10.0 + i for i, player in enumerate(won)}

    def trained(how, out):
        ran[Path(out).name] = how
        Path(out).mkdir(exist_ok=True)
        Path(out, "result.json").write_text("{}")  # a finished run, which has not played yet
        Path(out, "own").write_text(options(*how, f"--out={out}")[1].formulation)

    def called(command, log):
        *program, out, games = command
        assert program == ["-m", "claims.planner"] and games == "--games=128"
        asked.append(Path(out).name)
        own = Path(out, "own").read_text()
        more = out.endswith("4") / 100  # the second seed's model wins a little more
        found = {x: {"games": 128, "success": won[x] + more * (x == own), "turns": turns[x]}
                 for x in ("random", "expert", "simulator", own)}
        Path(out, "plan.json").write_text(json.dumps(found))
    monkeypatch.setattr(claims, "train", trained)
    monkeypatch.setattr(claims, "call", called)
    monkeypatch.chdir(REPO)  # the tuning that docs/ reports
    cells = [(arm, seed) for seed in (3, 4) for arm in ("leaky + R_sup", "stateless", "strict + R_sup")]
    folders = [f"paper-{claims.slug(arm, seed)}" for arm, seed in cells]
    for arm, seed in cells:
        trained(claims.worldmodel.command(arm, seed, {"lr": 0.1}), str(tmp_path / f"paper-{claims.slug(arm, seed)}"))
    # four games are not 128
    (tmp_path / folders[0] / "plan.json").write_text('{"random": {"games": 4}}')
    claims.games.reproduce(str(tmp_path), [3, 4], 1, "games")
    assert asked == folders  # leaky first
    best = claims.settings(str(tmp_path), "worldmodel")
    assert list(ran.values()) == [claims.worldmodel.command(arm, seed, best[arm]) for arm, seed in cells]
    assert "6 runs, 0 of them are done; the others take about 2.7 hours" in capsys.readouterr().out
    claims.games.reproduce(str(tmp_path), [3, 4], 1, "games")
    assert asked == folders and "6 runs, 6 of them are done" in capsys.readouterr().out

    found = json.loads((tmp_path / "games.json").read_text())
    assert found["games"] == 128 and found["settings"] == {arm: best[arm] for arm in claims.games.ARMS}
    text = (tmp_path / "games.md").read_text()
    assert text == claims.games.draw(found) + "\n"
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[1:] for row in rows[1:7]] == [
        [f"{x:.3f} +- 0.000", f"{turns[player]:.3f} +- 0.000"] if player in ("random", "expert", "simulator")
        else [f"{x + 0.005:.3f} +- 0.064", f"{turns[player]:.3f} +- 0.000"] for player, x in won.items()]
    assert rows[8:] == [["strict + R_sup - leaky + R_sup", "+0.500 +- 0.000", "yes"],
                        ["strict + R_sup - stateless", "+0.250 +- 0.000", "yes"],
                        ["leaky + R_sup - stateless", "-0.250 +- 0.000", "no"]]


def test_tandems_comparison_grades_its_grpo_runs_again_and_writes_its_table(tmp_path, monkeypatch):
    ran, graded = [], []

    def trained(how, out):
        cfg = options(*how, f"--out={out}")[1]
        ran.append((cfg.skill, cfg.junior_skill, cfg.p, cfg.seed, cfg.lr))
        return {"after": {name: [0.5 + 0.1 * (cfg.p < 1), 0.1] for name in claims.tandem.COLUMNS},
                "seconds": 1.0}

    def regraded(out, target, changes):
        graded.append((Path(out).name, Path(target).name, changes))
        return trained(claims.tandem.command("GRPO", 0, "", {"lr": 1.0}), out)
    monkeypatch.setattr(claims, "train", trained)
    monkeypatch.setattr(claims.tandem, "regrade", regraded)
    for figure in ("figure", "coins"):
        monkeypatch.setattr(claims.tandem, figure, lambda *_: None)
    monkeypatch.chdir(REPO)  # the tuning that docs/ reports
    claims.tandem.reproduce(str(tmp_path), [3, 4], 1)
    weak = [(f"{arm}-{seed}-plainjunior", f"{arm}-{seed}-weakjunior", {"junior_target": 0.6})
            for arm in ("GRPO", "GRPOtunedalone") for seed in (3, 4)]
    assert graded[:4] == weak and len(graded) == 8
    assert len(ran) == 2 * (10 + 5 + 3 + 3 + 9)
    found, text = json.loads((tmp_path / "results.json").read_text()), (tmp_path / "table.md").read_text()
    assert {c: list(arms) for c, arms in found["results"].items()} == {
        c: list(arms) for c, (_, arms, _) in claims.tandem.CONDITIONS.items()}
    assert "| tandem p = .5 | +0.100 +- 0.000 | unclear | +0.100 +- 0.000 | yes |" in text
    assert "| T2 | tandem p = .5: step handoff pass@1 better than GRPO | +0.100" in text
    assert "| A3 |" in text

    ran.clear()
    claims.tandem.reproduce(str(tmp_path), [3, 4, 5, 6], 1, quick=True)
    assert len(ran) == 3 * 4


def test_a_grpo_run_is_graded_by_another_junior(command, tmp_path, monkeypatch):
    """The senior of the run, another junior: the senior's own numbers stay, the team's do not."""
    assert command("--method", "tandem", "--p", "1", "--steps", "1", "--out", "o")[0] == 0
    monkeypatch.setitem(envs.arithmetic.SKILLS, "graded", (1.0, 0.0))  # as different as can be
    monkeypatch.setattr(envs.arithmetic.Arithmetic, "problems", 2)
    found, plain = claims.tandem.regrade("o", "graded", {"junior_skill": "graded"}), claims.finished("o")
    assert found["seconds"] == plain["seconds"] and found == claims.finished("graded")
    assert set(found["after"]) == set(plain["after"])
    assert found["after"]["solo pass@1"] == plain["after"]["solo pass@1"]
    assert found["after"]["legibility"] != plain["after"]["legibility"]
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it graded again"))
    assert claims.tandem.regrade("o", "graded", {"junior_skill": "graded"}) == found
    Path("graded/result.json").write_text(json.dumps({**found, "of": [{}, {}]}))  # of another run
    with pytest.raises(pytest.fail.Exception, match="it graded again"):
        claims.tandem.regrade("o", "graded", {"junior_skill": "graded"})


def test_results_that_other_options_made_are_not_taken_for_these(command, tmp_path):
    """--quick, then --tune, then the whole comparison: its folders must not be mixed."""
    options = ["--method=grpo", "--warm-steps=2", "--layers", "1", "--lr=0.5", "--steps=2"]
    (tmp_path / "o").mkdir()
    assert claims.finished(str(tmp_path / "o")) is None
    (tmp_path / "o/result.json").write_text('{"cut')
    assert claims.finished(str(tmp_path / "o")) is None
    (tmp_path / "o/config.json").write_text(json.dumps(
        {"method": "grpo", "warm_steps": 2, "layers": 1, "lr": 0.5, "steps": 2}))
    claims.check_same(options, str(tmp_path / "o"))
    claims.check_same(options, str(tmp_path / "none"))
    made = json.loads((tmp_path / "o/config.json").read_text())
    (tmp_path / "o/config.json").write_text(json.dumps({**made, "group": 3}))  # another default
    with pytest.raises(SystemExit, match="o was made with --group 3, not 8"):
        claims.check_same(options, str(tmp_path / "o"))
    (tmp_path / "o/config.json").write_text(json.dumps(made))
    with pytest.raises(SystemExit, match="o was made with --lr 0.5, not 0.25; move it away"):
        claims.check_same([*options, "--lr=0.25"], str(tmp_path / "o"))


@pytest.mark.parametrize("quick", [False, True])
def test_atods_comparison_draws_the_arms_that_it_ran(quick, tmp_path, monkeypatch):
    def trained(how, out):
        Path(out).mkdir()
        Path(out, "metrics.jsonl").write_text('{"zero_variance": 0.5, "A_opd": 1}\n')
        found = {"success": [0.7, 0.1], "turns": [8.0, None]}
        names = ("teacher", "before", "after")
        return {"columns": {f"{name}{how}": found for name in names for how in ("", ", greedy")},
                "looks": [[0.5, 20]], "times": {"time_rollout": 2.0, "time_environment": 1.0}}
    monkeypatch.setattr(claims, "train", trained)
    monkeypatch.chdir(REPO)
    claims.atod.reproduce(str(tmp_path), [3, 4], 1, "paper", quick)
    assert ("| D4 |" in (tmp_path / "table.md").read_text()) == (not quick)
    assert "| ATOD | 0.700" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("what", ["worldmodel --compare window1", "atod --compare tdur",
                                  "worldmodel --compare games", "worldmodel --compare memory"])
def test_results_that_are_not_there_yet_are_one_line(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.main([*what.split(), "--redraw"])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 and "reproduce.py" in out


# ---- figures ----

def is_picture(path):
    return Path(path).read_bytes().startswith(b"\x89PNG") and Path(path).stat().st_size > 5000


@pytest.mark.parametrize("more, name", [
    (["tandem"], "results"), (["atod"], "results"), (["atod", "--compare", "tdur"], "tdur"),
    (["worldmodel"], "results")])
def test_figures_are_redrawn_from_the_results_in_docs(more, name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="pip install -e '.[plot]'")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / more[0]).mkdir(parents=True)
    results = (REPO / "docs" / more[0] / f"{name}.json").read_text()
    (tmp_path / "docs" / more[0] / f"{name}.json").write_text(results)
    monkeypatch.setattr(claims, "train", lambda *_: pytest.fail("it trains"))
    axes = lines_of(monkeypatch)
    reproduce.main([*more, "--redraw"])
    assert outside(axes[0].figure) == []
    assert is_picture(f"docs/{more[0]}/{name if name != 'results' else more[0]}.png")
    assert "| arm |" in (out := capsys.readouterr().out) or "| ATOD |" in out
    assert not Path("out").exists()


def lines_of(monkeypatch):
    """-> a list that the figures' axes are put into when they are saved"""
    axes = []
    save = claims.plot.save
    monkeypatch.setattr(claims.plot, "save", lambda plt, path: (axes.extend(plt.gcf().axes),
                                                                save(plt, path)))
    return axes


def outside(figure):
    """The title, the labels and the names in a figure that its edges cut."""
    from matplotlib.text import Text
    page = figure.bbox.padded(1)
    ticks = [tick for ax in figure.axes for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    boxes = {text.get_text(): text.get_window_extent() for text in figure.findobj(Text)
             if text.get_text() and text not in ticks}
    return [text for text, box in boxes.items() if not (
        page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1)]


def test_the_figure_over_coins_has_a_point_a_run(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="pip install -e '.[plot]'")

    def runs(x, n):
        return [{"solo pass@1": [x, 0], "step handoff pass@1": [x / 2, 0], "kl": [x / 10, 0]}] * n
    arms = {arm: runs(0.5, 4) for arm in (*claims.tandem.ARMS, claims.tandem.LONG)}
    arms[claims.tandem.ALONE] = runs(0.9, 4)
    others = {arm: runs(0.5, 2) for arm in claims.tandem.SWEEP}
    axes = lines_of(monkeypatch)
    claims.tandem.coins({"plain junior": arms, "other coins": others}, str(tmp_path / "coins.png"))
    assert is_picture(tmp_path / "coins.png")
    means, *points = axes[1].lines  # the drift: a line of means, then each p's seeds
    p = [n / 10 for n in range(1, 11)]
    assert list(means.get_xdata()) == p
    assert list(means.get_ydata()) == pytest.approx([0.05] * 9 + [0.09])
    assert sorted(line.get_xdata()[0] for line in points) == p
    assert all(len(line.get_xdata()) == 2 for line in points)  # as many seeds as the fewest


def test_the_figure_of_memory_shows_the_windows_that_were_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="pip install -e '.[plot]'")
    monkeypatch.chdir(tmp_path)
    docs = Path("docs/worldmodel")
    docs.mkdir(parents=True)
    with pytest.raises(SystemExit):  # it is only drawn
        reproduce.main(["worldmodel", "--compare", "memory"])
    reproduce.main(["worldmodel", "--compare", "memory", "--redraw"])
    assert "reproduce.py worldmodel --compare window1" in capsys.readouterr().out

    def one(gain):
        metrics = ("obs H=9", *(f"obs, seen {a}-{b} ago" for a, b in imagine.AGES))
        strict = {**dict.fromkeys(metrics, 0.5 + gain), metrics[-1]: 0.75 + gain}
        return {"results": {"x": {"stateless": [dict.fromkeys(metrics, 0.5)] * 3,
                                  "strict + R_sup": [strict] * 3}}}
    claims.write(docs / "window1.json", one(0.2))
    claims.write(docs / "results.json", one(0.1))
    claims.write(docs / "unbounded.json", one(0.0))
    axes = lines_of(monkeypatch)
    reproduce.main(["worldmodel", "--compare", "memory", "--redraw"])
    table = capsys.readouterr().out
    assert "| window 1 | +0.200 +- 0.000 | +0.200 +- 0.000 |" in table
    assert "| at window 1 than at window 4, H = 9 | +0.100 +- 0.000 | yes |" in table
    assert "| for rooms seen 9-16 ago than 1-2, window all | +0.250 +- 0.000 | yes |" in table
    assert is_picture(docs / "memory.png")
    left, right = axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["1", "4", "all"]
    means = [line for line in left.lines if line.get_markersize() == 9]
    assert [line.get_ydata()[0] for line in means] == pytest.approx([0.2, 0.1, 0.0])
    assert [text.get_text() for text in right.texts] == ["window 1", "window 4"]


@pytest.mark.parametrize("more", [["--compare", "window1"], ["--compare", "short"],
                                  ["--env", "textworld"], ["--env", "scienceworld"]])
def test_tables_without_a_figure_are_redrawn_too(more, monkeypatch, capsys):
    monkeypatch.chdir(REPO)
    before = {path: path.stat().st_mtime for path in Path("docs").rglob("*.png")}
    reproduce.main(["worldmodel", *more, "--redraw"])
    assert "| strict + R_sup |" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime for path in Path("docs").rglob("*.png")}


def test_labels_are_moved_apart_and_keep_their_order():
    assert claims.plot.apart([0.5, 0.1], 0.2) == [0.5, 0.1]
    moved = claims.plot.apart([0.5, 0.5, 0.51], 0.2)
    assert moved[1] - moved[0] == pytest.approx(0.2) and moved[2] - moved[1] == pytest.approx(0.2)
    assert claims.plot.smooth([0, 3, 0, 3], 3) == pytest.approx([1.5, 1, 2, 1.5])


def test_curves_are_read_from_a_run(tmp_path, monkeypatch):
    lines = [{"step": 1, "success": 0.1}, {"step": 2, "success": 0.3, "valid success": 0.25}]
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    columns = {name: {"success": [x, 0.1]} for name, x in (("teacher", 0.7), ("before", 0.2), ("after", 0.4))}
    (run / "result.json").write_text(json.dumps({"columns": columns}))
    assert claims.curves.read(str(run)) == (
        [(1, 0.1), (2, 0.3)], [(2, 0.25)], [(0, 0.2, 0.1), (2, 0.4, 0.1)], 0.7)
    pytest.importorskip("matplotlib", reason="pip install -e '.[plot]'")
    monkeypatch.setattr("sys.argv", ["curves", str(tmp_path / "curves.png"), str(run)])
    claims.curves.main()
    assert is_picture(tmp_path / "curves.png")


# ---- pictures of text ----

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture):
    """Well-formed XML -> its lines as [(class, text)], and the place of the furthest character"""
    root = ElementTree.fromstring(picture)
    width, height = float(root.get("width")), float(root.get("height"))
    found = []
    for element in root.iter(f"{SVG}text"):
        line = "".join(element.itertext())
        assert 0 < float(element.get("x")) and 0 < float(element.get("y")) < height
        assert float(element.get("x")) + claims.svg.WIDTH * len(line) <= width, line
        found.append([(part.get("class"), part.text) for part in element] or [(None, line)])
    assert 0 < width < 900
    style = root.find(f"{SVG}style").text
    assert "prefers-color-scheme: dark" in style and "#0072B2" in style and "#D55E00" in style
    return found


def test_a_picture_of_chains_is_well_formed_whatever_they_say():
    parts = [("senior", "1<2 & 3>2\n"), ("junior", "]]> \x00\x1b\ud7ff\n" + "x" * 70), ("senior", "\n#4\n")]
    columns = [("before", parts, False, 0.37), ("after", [("senior", "")], True, None), ("team", [], True, 1)]
    found = texts(claims.chains.draw("what is <1> & \"2\"?\nand 3", columns))
    flat = [part for line in found for part in line]
    assert ("senior", "1<2 & 3>2") in flat and ("junior", "x" * claims.chains.LONGEST) in flat
    assert sum(len(text) for kind, text in flat if kind == "junior" and set(text) == {"x"}) == 70
    assert [part for part in flat if part[0] in ("right", "wrong")] == [
        ("wrong", "✗ wrong"), ("right", "✓ right"), ("right", "✓ right")]
    assert ("faint", "  (right: 37 in 100)") in flat


def test_the_problem_to_show_is_a_typical_one():
    def chains(right, private=None):
        return [{"right": r, "private": p} for r, p in zip(right, private or [0] * 4)]
    before = chains([1, 0, 0, 0], [1, 0, 1, 1])  # mostly wrong
    after, team = chains([1, 1, 0, 1]), chains([1, 1, 1, 1])
    assert claims.chains.typical([before, after, team]) == 3
    with pytest.raises(claims.chains.run.Stop):
        claims.chains.typical([chains([0] * 4), after, team])


def test_chains_are_drawn_from_a_run(command, monkeypatch, capsys):
    assert command("--method", "tandem", "--steps", "1", "--out", "o")[0] == 0
    monkeypatch.setattr(claims.chains, "typical", lambda played: len(played) - 3)
    assert claims.chains.main(["o", "chains.svg"]) == 0
    flat = [part for line in texts(Path("chains.svg").read_text()) for part in line]
    assert [text for _, text in flat if text in claims.chains.TITLES] == list(claims.chains.TITLES)
    question = envs.make("arithmetic").reset(0, "test")
    assert any(text == question for _, text in flat)
    # the chain is the one that the run's final table saw
    _, columns = claims.chains.columns_of("o", n=4)
    assert all(kind in ("senior", "junior") for _, parts, *_ in columns for kind, _ in parts)
    assert {kind for _, parts, *_ in columns[:2] for kind, _ in parts} <= {"senior"}
    assert command("--method", "sft", "--steps", "1", "--out", "other")[0] == 0
    assert claims.chains.main(["other", "x.svg"]) == 2 and not Path("x.svg").exists()
    assert "is a run of --method sft, not of --method tandem" in capsys.readouterr().err


def test_a_strip_is_well_formed_whatever_it_says(tmp_path, capsys):
    turns = [["goal <put> & \"heat\" " + "far " * 40 + "<|turn|>", "take <egg>" * 9 + "<|end|>", 1.0, 2.0, 0.1],
             ["nothing\x07 here<|turn|>", "", 0.25, 0.0, 0.0]]
    strips = {"before": {"turns": turns, "won": False}, "after": {"turns": turns[:1], "won": True}}
    (tmp_path / "result.json").write_text(json.dumps({"strips": strips}))
    path = tmp_path / "strip.svg"
    assert claims.strip.main([str(tmp_path), str(path)]) == 0
    picture = path.read_text()
    flat = [part for line in texts(picture) for part in line]
    assert ("wrong", "lost") in flat and ("right", "won") in flat
    assert any(text.startswith('goal <put> & "heat" far') for _, text in flat)
    assert not any("<|" in text for _, text in flat) and [t for _, t in flat if t == "0.25"]
    bars = [r for r in ElementTree.fromstring(picture).iter(f"{SVG}rect") if r.get("class") == "bar"]
    assert [float(bar.get("width")) for bar in bars] == [90, 22.5, 90]
    (tmp_path / "result.json").write_text("{}")
    assert claims.strip.main([str(tmp_path), str(path)]) == 2
    assert "no finished run of --method atod" in capsys.readouterr().err


def test_a_strip_is_drawn_from_a_run(command):
    assert command("--method", "atod", "--turns", "3", "--steps", "1", "--out", "o")[0] == 0
    assert claims.strip.main(["o", "strip.svg"]) == 0
    lines = texts(Path("strip.svg").read_text())
    assert sum("training" in part[0][1] for part in lines) == 2


# ---- the command ----

@pytest.mark.parametrize("argv, says", [
    (["worldmodel", "--tune", "--env", "textworld"], "--tune is for a paper"), (["atod", "--compare", "short"], "--compare short is not for atod"),
    (["atod", "--env", "textworld"], "--env is for"), (["tandem", "--seeds", "11"], "--seeds is 1 to 10"),
    (["worldmodel", "--env", "textworld", "--compare", "short"], "without --compare"),
    (["worldmodel", "--quick", "--compare", "short"], "--quick is for")])
def test_what_it_refuses(argv, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for module in (claims.tandem, claims.worldmodel, claims.atod, claims.realworlds):
        monkeypatch.setattr(module, "reproduce", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit) as end:
        reproduce.main(argv)
    assert end.value.code == 2 and says in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_run_that_fails_ends_the_comparison_and_says_where_to_look(tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    with pytest.raises(SystemExit) as end:
        claims.train(["--method=none"], str(tmp_path / "o"))
    assert "ended with code 2: see" in str(end.value)
    assert "unknown method" in (tmp_path / "o.log").read_text()
