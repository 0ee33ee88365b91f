"""The benchmark's own arithmetic and output, at tiny sizes. No time is asserted."""
import json

import pytest
import torch

import bench
from claims import gpu_variants, growth, parts, speed, tricks, update
from model import GPT, GPTConfig
from sampler import Sampler

TINY = (GPTConfig(31, 30, layers=1, heads=1, kv_heads=1, width=32, head_width=32, ffn_width=32), 3, 12)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(speed.SIZES, "toy", TINY)


def run(monkeypatch, capsys, *args):
    monkeypatch.setattr("sys.argv", ["bench.py", *args])
    bench.main()
    return capsys.readouterr().out


def test_every_sampler_makes_as_many_tokens_as_it_says(tiny):
    cfg, prompt, new = TINY
    model, prompts = GPT(cfg), torch.randint(31, (5, prompt)).tolist()
    assert speed.ours(model, prompts, new)() == 5 * new
    assert speed.ours(model, prompts, new, GPT(cfg))() == 5 * new
    assert speed.without_cache(model, prompts, new)() == 5 * new
    assert speed.ours(model, prompts, new, turns=3)() == 5 * new


@pytest.mark.parametrize("kind", [Sampler, speed.Captured, gpu_variants.Buckets,
                                  gpu_variants.ReduceOverhead])
def test_a_sampler_has_the_precision_of_its_model(kind):
    """On a GPU that is bf16, as in a run; a rehearsal on a CPU would not notice a copy in fp32."""
    cfg, prompt, new = TINY
    model = GPT(cfg).to(torch.bfloat16)
    sampler = speed.ours(model, torch.ones(2, prompt).long().tolist(), new, kind=kind).sampler
    assert sampler.models[0] is model and sampler.caches[0][0][0].dtype == torch.bfloat16


def test_the_table_and_its_json(tiny, monkeypatch, capsys):
    out = run(monkeypatch, capsys, "--size", "toy", "--batch", "2,3",
              "--only", "ours eager,no cache", "--repeats", "2")
    *table, last = out.strip().splitlines()
    found = json.loads(last)
    assert [r["rows"] for r in found["runs"]] == [2, 3]
    assert found["torch"] == torch.__version__ and "CPU" in found["device"]
    for r in found["runs"]:
        assert r["beside"] == "no cache" and r["samplers"]["no cache"]["ratio"] == 1
        low, high = r["samplers"]["no cache"]["spread"]
        assert low == high == 1
        assert r["limit"]["gemm_s"] > 0 and r["limit"]["cache_s"] > 0
        limit = r["rows"] / (r["limit"]["gemm_s"] + r["limit"]["cache_s"])
        for x in r["samplers"].values():
            assert x["spread"][0] <= x["ratio"] <= x["spread"][1]
            assert x["share"] == pytest.approx(x["tokens_s"] / limit)
    assert sum(line.startswith("no cache") for line in table) == 2
    out = run(monkeypatch, capsys, "--size", "toy", "--batch", "2", "--only", "no cache",
              "--repeats", "1", "--json")
    assert len(out.strip().splitlines()) == 1


def test_each_trick_has_its_ratio(tiny, monkeypatch, capsys):
    real = tricks.tricks
    monkeypatch.setattr(tricks, "tricks", lambda *how: real(*how, group=2, prompts=2))
    monkeypatch.setattr(torch, "compile", lambda f, **how: f)  # not what is looked at here
    out = run(monkeypatch, capsys, "tricks", "--size", "toy", "--repeats", "1")
    found = json.loads(out.strip().splitlines()[-1])["ratios"]
    assert found["as it is"] == [1.0] and len(found) == 8
    assert all(len(r) == 1 and r[0] > 0 for r in found.values())


def test_without_its_tricks_the_sampler_says_the_same(tiny):
    cfg, prompt, new = TINY
    torch.manual_seed(0)
    model, texts = GPT(cfg), torch.randint(31, (2, prompt)).tolist()
    said = {}
    for name, kind, shared in (("base", speed.Sampler, True), ("all", tricks.AllSlots, True),
                               ("looking", tricks.Looking, True), ("alone", speed.Sampler, False)):
        made = []

        def make(*args, kind=kind, made=made, **how):
            made.append(kind(*args, **how))
            return made[0]
        sample = tricks.group_sampler(make, model, texts, 2, new, shared)
        assert sample() == 4 * new
        said[name] = made[0].tokens.tolist()
    assert len({str(x) for x in said.values()}) == 1


def test_transformers_stand_beside_ours_on_the_same_weights(tiny, monkeypatch):
    pytest.importorskip("safetensors", reason="pip install safetensors")
    pytest.importorskip("transformers", reason="pip install transformers")
    found = speed.sampling("toy", 2, 1, "cpu", ["transformers dynamic", "no cache"])
    assert found["beside"] == "transformers dynamic"
    assert found["samplers"]["transformers dynamic"]["tokens_s"] > 0


@pytest.mark.parametrize("args", [["--size", "huge"], ["--batch", "many"], ["--profile"], ["trees"]])
def test_what_it_refuses(monkeypatch, capsys, args):
    if torch.cuda.is_available() and args == ["--profile"]:
        pytest.skip("there is a GPU")
    monkeypatch.setattr("sys.argv", ["bench.py", *args])
    with pytest.raises(SystemExit):
        bench.main()


def test_a_tree_beside_a_flat_group(monkeypatch, capsys):
    """As many samples of about as many tokens, both as an update has them."""
    real = tricks.tree
    monkeypatch.setattr(tricks, "tree", lambda repeats: real(repeats, examples=1))
    found = json.loads(run(monkeypatch, capsys, "tree", "--repeats", "1").strip().splitlines()[-1])
    assert (found["samples"], found["tokens"], found["flat_tokens"]) == (84, 1632, 1596)
    for part in ("sampling", "update"):
        assert found[part]["ratio"] == pytest.approx(found[part]["tree_s"] / found[part]["flat_s"])
    assert found["update"]["tree_s"] > found["sampling"]["tree_s"]


# ---- a whole update ----

@pytest.fixture
def tiny_update(monkeypatch):
    shape = {"layers": 1, "width": 32, "prompts": 2, "group": 3, "max_new": 4}
    monkeypatch.setitem(update.SIZES, "toy", shape)
    monkeypatch.setattr(update, "WARM", 1)


def test_a_whole_update(tiny_update, monkeypatch, capsys):
    """A table and its JSON, every group with variance; TRL beside ours where it is installed."""
    out = run(monkeypatch, capsys, "update", "--repeats", "2")
    *table, last = out.strip().splitlines()
    found = json.loads(last)
    here, = found["runs"]
    assert found["torch"] == torch.__version__
    assert (here["prompts"], here["group"], here["prompt_tokens"], here["new_tokens"]) == (2, 3, 14, 4)
    assert {"ours", "ours, tandem"} <= here["ways"].keys()
    assert ("TRL" in here["ways"]) == (not update.missing()) == ("pip install" not in out)
    for name, x in here["ways"].items():
        assert any(line.startswith(name + " ") for line in table)
        assert x["variance"] == 1 and x["tokens"] == 2 * 3 * 4
        assert len(x["all"]) == 2 and all(x[part] > 0 for part in ("rollout", "scoring", "update"))
    assert "proves nothing" not in out


def test_trl_makes_the_same_update_as_ours(tiny_update, monkeypatch, capsys):
    """Which is faster is not asserted, only that the two stand side by side."""
    pytest.importorskip("trl", reason="pip install trl")
    found = update.measure("toy", 2)["ways"]
    assert found["TRL"]["ratio"] == 1
    low, high = found["ours"]["spread"]
    assert 0 < low <= found["ours"]["ratio"] <= high


def test_groups_without_variance_are_told(tiny_update, monkeypatch, capsys):
    monkeypatch.setattr(update, "reward_of", lambda text: 0.5)
    monkeypatch.setattr(update, "missing", lambda: ["trl"])
    out = run(monkeypatch, capsys, "update", "--repeats", "1")
    ways = json.loads(out.strip().splitlines()[-1])["runs"][0]["ways"]
    assert ways["ours"]["variance"] == 0 and "proves nothing" in out


def test_their_tokenizer_has_our_ids(tiny_update):
    pytest.importorskip("transformers", reason="pip install transformers")
    cfg, env = update.tandem.Config(**update.SIZES["toy"]), update.open_world()
    tok, _ = update.open_start(cfg, env, "")
    theirs, ids = update.their_tokenizer(tok, ""), update.questions(cfg, env, tok, 3)
    texts = update.their_prompts(ids, tok, theirs)
    assert len(texts) == 6 and theirs.eos_token_id == tok.end_id
    every = list(range(tok.n_vocab))
    assert theirs.convert_tokens_to_ids(theirs.convert_ids_to_tokens(every)) == every
    with pytest.raises(ValueError, match="disagree"):
        update.their_prompts([ids[0][:-1] + [tok.end_id, 300 - 42 - 1, 0x80]], tok, theirs)


@pytest.mark.parametrize("args", [["--size", "10m"], ["--size", "smollm2"], ["--senior", "x"]])
def test_what_an_update_refuses(monkeypatch, capsys, args):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "update", *args)


def test_a_step_of_two_authors_is_timed_in_each_way(stories, capsys):
    bench.main(["authors", "--senior", str(stories), "--batch", "1,2", "--repeats", "1"])
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in table[2:5]] == [
        ["solo", table[2].split()[2]], ["one", "pass"], ["two", "models"]]
    found = json.loads(last)
    assert [x["rows"] for x in found["runs"]] == [1, 2]
    assert all(x["solo"][1] == 1.0 and x["two models"][1] > 0 for x in found["runs"])


def test_authors_without_a_model_is_one_line(capsys):
    with pytest.raises(SystemExit):
        bench.main(["authors"])
    assert "--senior FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["tandem", "worldmodel", "atod"])
def test_the_parts_of_an_update_add_up_and_clocks_are_taken_off(method, command, capsys):
    env = "guess" if method == "tandem" else "house"
    assert command("--method", method, "--env", env, "--steps", "1", "--out", "o")[0] == 0
    linear = torch.nn.functional.linear
    parts.main(["o", "--updates", "2"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sum(found["parts"].values()) == pytest.approx(found["seconds"])
    assert all(seconds > 0 for seconds in found["parts"].values())
    expected = {"matrix multiplications", "attention", "draw", "games", "rows of tensors"}
    if method == "worldmodel":
        expected = {"facts and rewards", "backward pass", "text to tokens"}
    assert expected <= found["parts"].keys() and torch.nn.functional.linear is linear


def test_growth_has_a_slope_for_everything_that_grows(monkeypatch, capsys):
    assert growth.slope([1, 2, 4], [3, 6, 12]) == pytest.approx(1)
    assert growth.slope([1, 2, 4], [5, 20, 80]) == pytest.approx(2)
    monkeypatch.setattr(growth, "MIDDLE", {"prompts": 1, "group": 2, "max_new": 2, "layers": 1})
    monkeypatch.setattr(growth, "GROWN", {"rows": ("prompts", (1, 2)), "new tokens": ("max_new", (2, 4)),
                                          "layers": ("layers", (1, 2))})
    growth.main(["--repeats", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"]["sizes"] == [2, 4] and found["layers"]["sizes"] == [1, 2]
    assert all(len(found[name]["time_update"]) == 2 for name in growth.GROWN)
