"""The comparison of arms: intervals, verdicts and tables on numbers made up by hand, and that every arm is a command. No training."""
import json
import math

import pytest

import envs
import imagine
import claims
import claims.atod
import claims.curves
import claims.realworlds
import claims.tandem
import claims.worldmodel
import reproduce
import run
import train
import trajectories
import worldmodel
from conftest import tiny_world
from claims import interval, verdict
from claims.worldmodel import CLAIMS, WORLD_TABLES, WORLDS


# ---- intervals and verdicts ----

def test_an_interval_by_hand():
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0)
    assert interval([1.0, 3.0]) == pytest.approx((2, 12.706 * math.sqrt(2) / math.sqrt(2)))  # by a table of Student's t, two seeds
    assert interval([1, 2, 3]) == pytest.approx((2, 4.303 / math.sqrt(3)))
    assert interval([0.7])[0] == 0.7 and math.isnan(interval([0.7])[1])
    assert all(a > b for a, b in zip(list(claims.T_95.values()), list(claims.T_95.values())[1:])) and list(claims.T_95) == list(range(2, 11))


@pytest.mark.parametrize("differences, better, as_good", [
    ([0.1, 0.1, 0.1], "yes", "unclear"), ([-0.1, -0.1, -0.1], "no", "no"), ([0.0, 0.0, 0.0], "unclear", "yes"),
    ([0.01, 0.01, 0.01], "yes", "yes"), ([-0.01, -0.01, -0.01], "no", "yes"),  # clear, and small
    ([0.03, -0.03, 0.0], "unclear", "unclear"), ([0.2, 0.0, 0.1], "unclear", "unclear"),  # 0.1 +- 0.248
    ([0.02] * 3, "yes", "unclear"), ([-0.02] * 3, "no", "unclear"),  # two points are no longer as good
    ([0.5], "unclear", "unclear"), ([0.0], "unclear", "unclear")])  # one seed says nothing
def test_verdicts_by_hand(differences, better, as_good):
    assert (verdict(differences, "better"), verdict(differences, "as good")) == (better, as_good)


def test_the_margin_of_as_good_can_be_chosen():
    assert verdict([0.04] * 3, "as good", margin=0.05) == "yes" and verdict([-0.06] * 3, "as good", margin=0.05) == "no"


# ---- world models ----

def a_result(own="strict", shift=0.0, plan=()):
    """A result.json as world.final_table writes it, with few metrics."""
    far = lambda x: {"obs H=1": [x, 0.01], "obs 10-25": [x / 2, 0.02], "history leak": [0.0, None]}
    columns = {f"{f}, warm": {"obs H=1": [0.1, 0.0]} for f in worldmodel.FORMULATIONS if f != own}  # one step: no "obs 10-25"
    columns.update({f"{own}, warm": far(0.4), f"{own}, warm, T=1": {"obs H=1": [0.3, 0.0]},
                    f"{own}, trained": far(0.6 + shift), f"{own}, trained, T=1": {"obs H=1": [0.5 + shift, 0.0]}})
    return {"n": 2, "seconds": 100.0, "update_seconds": 60.0, "columns": columns, "plan": {p: {"success": x, "error": 0.1, "turns": 9.0} for p, x in plan}}


def test_what_is_taken_from_a_result_by_hand():
    found = claims.worldmodel.world_columns(a_result(plan=[("random", 0.1), ("expert", 1.0), ("simulator", 0.8), ("strict", 0.25)]))
    assert found == {"warm": {"obs H=1": 0.4, "obs 10-25": 0.2, "history leak": 0.0, "T=1": 0.3},
                     "trained": {"obs H=1": 0.6, "obs 10-25": 0.3, "history leak": 0.0, "T=1": 0.5, "plan": 0.25, "seconds": 60.0}}
    for own in worldmodel.FORMULATIONS:
        found = claims.worldmodel.world_columns(a_result(own))
        assert found["trained"]["obs H=1"] == 0.6 and found["warm"]["T=1"] == 0.3 and "plan" not in found["trained"]


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
    return {metric: x for metric in [m for columns in WORLD_TABLES.values() for m in columns] + [claim[2] for claim in CLAIMS]}


def test_tables_have_a_row_an_arm_and_a_line_a_claim():
    arms = {arm: [everything(0.5 + 0.1 * i) for _ in range(3)] for i, arm in enumerate(["strict, warm start", *WORLDS])}
    del arms["leaky"][1]["CR"]  # a metric that one seed lacks is shown of none
    found = sections(claims.worldmodel.world_tables(arms))
    assert list(found) == [*WORLD_TABLES, "claims"]
    for title, columns in WORLD_TABLES.items():
        assert [row[0] for row in found[title]] == list(arms)
        for i, row in enumerate(found[title]):
            assert row[1:] == ["-" if (row[0], m) == ("leaky", "CR") else f"{0.5 + 0.1 * i:.3f} +- 0.000" for m in columns]
    assert len(found["claims"]) == len(CLAIMS)  # all arms are there
    for row, (arm, other, metric, kind, paper) in zip(found["claims"], CLAIMS):
        gap = 0.1 * (list(arms).index(arm) - list(arms).index(other))
        question = f"{metric}, {'better' if kind == 'better' else 'as good as (2 points)'}?"
        answer = ("yes" if gap > 0 else "no") if kind == "better" else ("unclear" if gap > 0 else "no")
        assert row == [arm, other, question, f"{gap:+.3f} +- 0.000", answer, paper]


@pytest.mark.parametrize("kept", [["stateless"], ["stateless", "leaky + R_sup", "strict + R_sup"], ["strict", "leaky"], list(WORLDS)])
def test_claims_about_arms_that_were_not_run_are_left_out(kept):
    found = sections(claims.worldmodel.world_tables({arm: [everything(0.5)] for arm in kept}))  # one seed
    expected = [claim for claim in CLAIMS if claim[0] in kept and claim[1] in kept]
    assert [row[:2] for row in found["claims"]] == [list(claim[:2]) for claim in expected]
    assert all(row[3:5] == ["+0.000", "unclear"] for row in found["claims"])
    assert all(len(found[title]) == len(kept) for title in WORLD_TABLES)


def test_differences_are_paired_over_seeds():
    """Seeds that differ much, arms that differ by the same within each."""
    arms = {arm: [everything(x + (0.05 if arm == "strict" else 0.0)) for x in (0.1, 0.5, 0.9)] for arm in ("strict", "leaky")}
    lines = sections(claims.worldmodel.world_tables(arms))["claims"]
    assert len(lines) == 3 and all(row[3:5] == ["+0.050 +- 0.000", "yes"] for row in lines)


def test_every_number_that_the_tables_ask_for_is_measured():
    """No metric is misspelt: what imagine.py measures of untrained models fills every cell that can be filled, and settles every claim."""
    found = {level: envs.make("house", level=level) for level in (2, 3)}
    examples = trajectories.examples(found, range(12), "valid", "tables", future=25, past=(4, 6))
    for e in examples:
        e.future[0].action = "go hall"  # so that there is another's state
    arms = {}
    for own in worldmodel.FORMULATIONS:
        w = tiny_world(own, window=2)
        far, near = {**imagine.measure(w, examples, 25), **imagine.swap(w, examples, {})}, imagine.measure(w, examples, 1)
        if own != "stateless":
            far["history leak"] = (imagine.leak(w, *examples[:2]), None)
        columns = {f"{own}, {when}{sampled}": x for when in ("warm", "trained") for sampled, x in (("", far), (", T=1", near))}
        result = {"columns": columns, "seconds": 2.0, "update_seconds": 1.0, "plan": {own: {"success": 0.5}}}
        both = claims.worldmodel.world_columns(result)
        arms.update({arm: [both["trained"]] * 2 for arm in WORLDS if arm.startswith(own)})
        arms[f"{own}, warm start"] = [both["warm"]] * 2
    tables = sections(claims.worldmodel.world_tables(arms))
    assert len(tables["claims"]) == len(CLAIMS)
    of_states = {"CR", "well-formed", "own state", "another's state", "own - another's", "action alone", "history leak"}
    for title, columns in WORLD_TABLES.items():
        for arm, *cells in tables[title]:
            missing = {m for m, cell in zip(columns, cells) if cell == "-"}
            expected = {m for m in columns if "state." in m or "s'" in m or m in of_states} if "stateless" in arm else set()
            assert missing == expected | ({"plan", "seconds"} & set(columns) if "warm start" in arm else set()), (title, arm)


@pytest.mark.parametrize("env", claims.realworlds.PAPER)
def test_the_tables_of_a_real_world_by_hand(env):
    metrics = {m for column in claims.realworlds.columns(env).values() for m in column} | {m for _, m, _ in claims.realworlds.CLAIMS}
    of_states = {m for m in metrics if "state" in m or "another" in m} | {"action alone", "well-formed"}
    runs = {"stateless": 0.5, "leaky + R_sup": 0.3, "strict + R_sup": 0.6}
    arms = {arm: [{m: x + seed for m in metrics - (of_states if arm == "stateless" else set())} for seed in (0.0, 0.01)] for arm, x in runs.items()}
    table, verdicts = ([[cell.strip() for cell in line.strip("|").split("|")] for line in part.strip().split("\n")]
                       for part in claims.realworlds.table(env, arms).split("\n\n"))
    assert len({len(row) for row in table}) == 1 and [row[0] for row in table[2::2]] == list(runs) and {row[0] for row in table[3::2]} == {"*the paper, 4B*"}
    assert table[2][1].startswith("0.505 +- 0.064 / ") and table[2][2] == table[2][7] == "-" and table[6][7] == "0.605 +- 0.064"
    assert [(row[0], row[2], row[3]) for row in verdicts[2:]] == [
        (other, *{"leaky + R_sup": ("+0.300 +- 0.000",), "stateless": ("+0.100 +- 0.000",)}[other], "unclear" if kind == "as good" else "yes")
        for other, _, kind in claims.realworlds.CLAIMS]


@pytest.mark.parametrize("more", ["", "--window=0", "--plan=16"])
@pytest.mark.parametrize("arm", WORLDS)
def test_every_arm_is_a_command(arm, more, tmp_path):
    v = train.read_options(["--method=worldmodel", *WORLDS[arm].split(), "--seed=3", *more.split(), f"--out={tmp_path}/o", "--threads=1", "--resume"])
    assert (v["formulation"], v["seed"], v["env"], v["method"]) == (arm.split()[0].strip(","), 3, "house", "worldmodel")
    assert v["flat"] == ("plain GRPO" in arm) and v["chain"] == (2 if "chain of 2" in arm else 1) and v["group"] == train.PRESETS["worldmodel"]["group"]
    assert ("sup" in v["terms"].split(",")) == (arm not in ("leaky", "strict"))
    run.build(worldmodel.Config, v)


def test_arms_differ_and_claims_are_about_them():
    found = [train.read_options(["--method=worldmodel", *options.split()]) for options in WORLDS.values()]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    warm = {f"{f}, warm start" for f in worldmodel.FORMULATIONS}
    assert {name for claim in CLAIMS for name in claim[:2]} <= {*WORLDS, *warm} and {arm for _, names, _ in claims.worldmodel.COMPARISONS.values() for arm in names} == set(WORLDS)
    assert all(kind in ("better", "as good") and arm != other for arm, other, _, kind, _ in CLAIMS)
    assert len({claim[:3] for claim in CLAIMS}) == len(CLAIMS) and len({claims.slug(arm) for arm in WORLDS}) == len(WORLDS)


@pytest.mark.parametrize("condition", claims.tandem.CONDITIONS)
@pytest.mark.parametrize("arm", claims.tandem.ARMS)
def test_every_arm_of_tandem_is_a_command_too(arm, condition):
    train.read_options(claims.tandem.command(arm, 0, condition, {"lr": 3e-4, **({"kl": 0.1} if "KL" in arm else {})}))


@pytest.mark.parametrize("arm", claims.atod.ARMS)
def test_every_arm_of_atod_is_a_command_too(arm):
    v = train.read_options([*claims.atod.ARMS[arm].split(), "--seed=3"])
    assert train.method_of(v).__name__ == "agent" and v["seed"] == 3 and v["env"] == "house"


def test_atods_table_by_hand():
    def result(success, teacher=0.7):
        column = lambda x: {"success": [x, 0.01], "turns": [8.0, None], "put": [x, None]}
        return {"columns": {name: column(x) for name, x in (("teacher", teacher), ("teacher, greedy", teacher), ("before", 0.1), ("before, greedy", 0.1),
                                                            ("after", success), ("after, greedy", success + 0.05))},
                "looks": [[0.3, 20], [0.6, 40], [0.5, 60]], "times": {"time_rollout": 5.0, "time_environment": 1.0, "time_update": 3.0}}
    curve = [{"zero_variance": 0.2}, {"zero_variance": 0.4}]
    found = claims.atod.metrics_of(result(0.8), curve)
    assert found == {"success": 0.8, "greedy": pytest.approx(0.85), "turns": 8.0, "best look": 0.6, "last look": 0.5, "seconds": 8.0,
                     "zero variance": pytest.approx(0.3), "put": 0.8}
    runs = {"ATOD": (0.8, 0.82, 0.81), "OPD": (0.7, 0.71, 0.72)}
    results = {"teacher": [claims.atod.player(result(x), "teacher") for x in runs["ATOD"]],
               **{arm: [claims.atod.metrics_of(result(x), curve) for x in xs] for arm, xs in runs.items()}}
    text = claims.atod.table(results, [0, 1, 2])
    assert "| OPD | +0.100 +- 0.025 | yes | +0.100 +- 0.025 | yes |" in text and "| teacher | +0.110 +- 0.025 | yes | +0.160 +- 0.025 | yes |" in text
    assert "| OPD | 0.710 +- 0.025 | 0.760 +- 0.025 | 8.000 +- 0.000 | 0.500 +- 0.000 |" in text and "| teacher | 0.70 | - |" in text


@pytest.mark.parametrize("seeds", [[3], [3, 4]])
@pytest.mark.parametrize("compare", claims.worldmodel.COMPARISONS)
def test_a_comparison_runs_its_arms_and_writes_its_table(compare, seeds, tmp_path, monkeypatch):
    ran = []

    def trained(options, out):
        ran.append(out)
        own = train.read_options([*options, f"--out={out}"])["formulation"]
        players = {p: {"success": 0.5} for p in ("random", "expert", "simulator", own)}
        return {"columns": {f"{own}, {when}{sampled}": {k: [x, 0.1] for k, x in everything(0.5).items()} for when in ("warm", "trained") for sampled in ("", ", T=1")},
                "update_seconds": 1.0, "plan": players if "--plan=16" in options else {}}
    monkeypatch.setattr(claims.worldmodel, "train", trained)
    monkeypatch.setattr(claims.worldmodel, "world_figure", lambda *_: None)
    monkeypatch.setattr(claims.worldmodel, "curve", lambda _: [])
    claims.worldmodel.reproduce(str(tmp_path), seeds, 2, compare)
    title, names, _ = claims.worldmodel.COMPARISONS[compare]
    found, text = json.loads((tmp_path / f"{compare}.json").read_text()), (tmp_path / f"{compare}.md").read_text()
    assert len(set(ran)) == len(ran) == len(names) * len(seeds) and set(names) <= set(found["results"][title])
    assert ("Other players: random 0.500" in text) == ("players" in found) == (compare == "paper") and "nan" not in text
    assert text.startswith(f"### {title}, mean" + (", seed 3" if len(seeds) == 1 else " +- 95% t-interval over 2 seeds"))


def test_curves_are_read_from_a_run(tmp_path, monkeypatch):
    lines = [{"step": 1, "success": 0.1}, {"step": 2, "success": 0.3, "valid success": 0.25}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "run" / "result.json").write_text(json.dumps({"columns": {k: {"success": [x, 0.1]} for k, x in (("teacher", 0.7), ("before", 0.2), ("after", 0.4))}}))
    assert claims.curves.read(str(tmp_path / "run")) == ([(1, 0.1), (2, 0.3)], [(2, 0.25)], [(0, 0.2), (2, 0.4)], 0.7)
    pytest.importorskip("matplotlib", reason="pip install -e '.[plot]'")
    monkeypatch.setattr("sys.argv", ["curves", str(tmp_path / "curves.png"), str(tmp_path / "run")])
    claims.curves.main()
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_tuning_is_for_tandem_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "worldmodel", "--tune"])
    monkeypatch.setattr(claims.worldmodel, "reproduce", lambda *_: pytest.fail("it went on"))
    with pytest.raises(SystemExit) as end:
        reproduce.main()
    assert end.value.code == 2 and "--tune is for tandem" in capsys.readouterr().err
