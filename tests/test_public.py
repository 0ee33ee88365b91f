"""Public weights in train.py, from the folder to the table, with a model small enough for every
machine (stories260K)."""
import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import chat
import lora
import pages
import run
import sample
import tandem
import tokenizer
import weights
from claims import authors
from envs import Step, sums
from lib import memory, terminal
from lib.start import load_model
from model import GPT, GPTConfig, small_config
from rollout import open_env
from sampler import Sampler
from train import METHODS
from conftest import errors, interrupt_at

TINY = ("--env sums --steps 2 --prompts 2 --group 4 --eval-problems 4 --test-problems 4 "
        "--test-chains 2 --eval-every 1 --save-every 1 --max-new 8 --compile off --lr 0.01").split()
QWEN3_4B = GPTConfig(  # config.json of Qwen3-4B-Instruct-2507; 151,669 of 151,936 ids are used
    vocab_size=151_669, context=4096 + 512, layers=36, heads=32, kv_heads=8, width=2560,
    head_width=128, ffn_width=9728, qk_norm=True, tied=True)


@pytest.fixture
def likes_e(monkeypatch):
    """A teller of stories cannot add: reward what it may say."""
    monkeypatch.setattr(sums.Sums, "step", lambda self, text: Step(
        "", float(text.count("e") % 2), True, {"success": text.count("e") % 2 == 1}))


def moved(state):
    return any(not torch.equal(x, state["warm"][name]) for name, x in state["model"].items())


def train(command, stories, *args):
    code, _, err = command("--method", "tandem", *TINY, "--senior", str(stories), "--out", "o",
                           *args)
    assert code == 0, err
    return run.load("o/ckpt.pt")


def test_tandem_trains_adapters_and_the_junior_is_what_they_are_for(command, stories, likes_e):
    state = train(command, stories)
    assert lora.rank_in(state["model"]) == 16 and set(state["model"]) == set(state["warm"])
    assert moved(state)
    assert state["origins"] == {"senior": str(stories), "junior": str(stories)}
    table = json.loads(Path("o/result.json").read_text())
    assert table["before"]["kl"][0] == 0 < table["after"]["kl"][0]  # the junior has not moved


def test_a_run_can_be_looked_at(command, stories, capsys):
    train(command, stories)
    assert sample.main(["o", "--n", "2"]) == 0
    shown = capsys.readouterr().out
    assert "before: the senior alone" in shown and shown.count("What is") == 2 * 3 * 2
    assert sample.main(["--env", "sums", "--agent", "o"]) == 0
    assert "What is" in capsys.readouterr().out


def test_all_weights_train_on_request(command, stories, likes_e):
    state = train(command, stories, "--lora", "0")
    assert lora.rank_in(state["model"]) == 0 and "embed.weight" in state["model"]
    assert moved(state)


def test_a_run_can_begin_with_what_another_one_trained(command, stories, likes_e):
    train(command, stories)
    shutil.move("o", "first")
    code, _, err = command("--method", "tandem", *TINY, "--senior", "first", "--out", "o",
                           "--steps", "3")
    assert code == 0, err
    state = run.load("o/ckpt.pt")
    assert lora.rank_in(state["model"]) == 16 and moved(state)
    assert state["origins"] == {"senior": "first", "junior": "first"}
    assert command("--resume", "--out", "o")[0] == 0
    assert load_model("o")[1].name == "folder"
    whole = [*TINY, "--senior", "first", "--lora", "0", "--out", "whole"]
    assert command("--method", "tandem", *whole)[0] == 0
    assert moved(run.load("whole/ckpt.pt"))


def test_adapters_that_were_trained_on_a_run_in_bf16_are_loaded_again(command, stories, likes_e):
    train(command, stories)
    shutil.move("o", "first")
    code, _, err = command("--method", "tandem", *TINY, "--senior", "first", "--bf16", "--out", "o")
    assert code == 0, err
    assert load_model("o")[1].name == "folder" and command("--resume", "--out", "o")[0] == 0
    other = run.load("first/ckpt.pt")
    other["model"] = {name: x + 1 for name, x in other["model"].items()}
    torch.save(other, "first/ckpt.pt")
    with pytest.raises(run.Stop, match="not those that its adapters were made for"):
        load_model("o")


def test_blanks_stay_where_the_author_changes(stories):
    tok = chat.load(stories)
    ids = tok.encode("Once upon a time there was")
    authors = [i % 4 < 2 for i in range(len(ids))]
    shown = terminal.painted(tok, ids, authors, False)
    assert shown.replace("«", "").replace("»", "") == tok.decode(ids) and "» " in shown
    parts = pages.whole(tok, ids, authors, range(len(ids)))
    assert "".join(text for text, _ in parts) == tok.decode(ids)


def test_runs_are_graded_by_their_own_start(command, stories, likes_e, capsys):
    for method in ("grpo", "tandem"):
        code, _, err = command("--method", method, *TINY, "--senior", str(stories), "--out", method)
        assert code == 0, err
    authors.main(["grpo", "tandem"])
    title, *lines = [line for line in capsys.readouterr().out.splitlines()
                     if line.startswith(("run ", "grpo ", "tandem "))]
    assert "step handoff" in title and [line.split()[0] for line in lines] == ["grpo", "tandem"]
    after = json.loads(Path("tandem/result.json").read_text())["after"]
    assert float(lines[1].split()[4]) == pytest.approx(after["legibility"][0], abs=2e-3)


@pytest.mark.parametrize("rank", ["16", "0"])
def test_resumed_equals_uninterrupted(command, stories, rank, likes_e, monkeypatch):
    how = ["--lora", rank, "--kl", "1", "--steps", "3"]
    whole = train(command, stories, *how)
    shutil.move("o", "whole")
    interrupt_at(monkeypatch, 2)
    assert command("--method", "tandem", *TINY, "--senior", str(stories), "--out", "o",
                   *how)[0] == 130
    assert run.load("o/ckpt.pt")["step"] == 2
    assert command("--resume", "--out", "o")[0] == 0
    now = run.load("o/ckpt.pt")
    assert now["step"] == 3 and moved(now)
    assert all(torch.equal(x, now["model"][name]) for name, x in whole["model"].items())


def test_other_weights_under_the_adapters_are_refused(command, stories, tmp_path):
    folder = shutil.copytree(stories, tmp_path / "model")
    train(command, folder)
    model = GPT.from_pretrained(folder)
    model.norm.weight.data += 0.1
    weights.save_pretrained(model, folder)
    code, *_, err = command("--resume", "--out", "o")
    assert code == 2 and "the base of this run changed" in err
    with pytest.raises(run.Stop, match="not those that its adapters were made for"):
        load_model("o")
    shutil.rmtree(folder)
    code, *_, err = command("--resume", "--out", "o")
    assert code == 2 and len(errors(err)) == 1 and "Traceback" not in err


def test_an_exported_run_writes_in_transformers_what_it_writes_here(command, stories, likes_e,
                                                                    capsys, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[hf]'")
    public = Path(shutil.copytree(stories, "public"))  # its config.json alone says what ends a reply
    (public / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((public / "config.json").read_text())
    (public / "config.json").write_text(json.dumps({**config, "eos_token_id": [2, 1]}))
    train(command, public, "--context", "64")
    assert weights.main(["export", "o", "exported"]) == 0
    model, tok, _ = load_model("o")
    exported = json.loads(Path("exported/config.json").read_text())
    assert model.cfg.context == 64 and exported["eos_token_id"] == [2, 1]
    assert exported["max_position_embeddings"] == config["max_position_embeddings"] > 64
    assert chat.load("exported").state()["hash"] == tok.hash and set(tok.stop_ids) == {1, 2}
    ids = tok.encode_turn("user", "Once upon a time", first=True)
    sampler = Sampler(model, 1)
    sampler.start()
    sampler.feed([0], [ids])
    sampler.sample(40, tok.stop_ids, temperature=0)
    ours = sampler.tokens[0, :int(sampler.length[0])].tolist()
    theirs = transformers.AutoModelForCausalLM.from_pretrained("exported")
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False)
    assert ours == made[0].tolist()
    assert chat.load("exported").encode("Tom ran") == tok.encode("Tom ran")
    assert weights.main(["export", "o", "exported"]) == 2
    assert "not empty" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # a kill: half of an export is no model
        patch.setattr(weights, "save_tensors", lambda *how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            weights.main(["export", "o", "half"])
    assert Path("half/tokenizer.json").exists() and not Path("half/config.json").exists()


def test_ids_that_the_tokenizer_lacks_are_never_there(stories, tmp_path):
    folder = shutil.copytree(stories, tmp_path / "padded")
    model = GPT.from_pretrained(folder)
    wide = GPT(GPTConfig(**{**vars(model.cfg), "vocab_size": 600}))
    wide.load_state_dict({name: torch.cat([x, torch.ones(88, 64)]) if len(x) == 512 else x
                          for name, x in model.state_dict().items()})
    weights.save_pretrained(wide, folder)
    found, tok, _ = load_model(folder)
    assert found.cfg.vocab_size == tok.n_vocab == 512
    ids = torch.tensor([[1, 5, 300]])
    torch.testing.assert_close(found(ids), wide(ids)[..., :512])
    small = GPT(GPTConfig(**{**vars(model.cfg), "vocab_size": 500}))
    weights.save_pretrained(small, folder)
    with pytest.raises(run.Stop, match="a vocabulary of 500 ids, its tokenizer has 512"):
        load_model(folder)


@pytest.mark.parametrize("options, message", [
    ("--senior empty", "no tokenizer.json in empty"),
    ("--senior mamba", "unknown architecture 'mamba'"),
    ("--context 5000", "--context 5000 is more than the 512 tokens"),
    ("--junior toy.pt", "differ in vocabulary"),
    ("--prompts 100000 --context 512", "this takes .* GB, .* of them for .*--dry-run"),
    ("--lora -2", "--lora is at least -1")])
def test_what_cannot_work_is_one_line_and_leaves_nothing(command, stories, options, message):
    Path("empty").mkdir()
    shutil.copytree(stories, "mamba")
    Path("mamba/config.json").write_text('{"model_type": "mamba"}')
    tok = tokenizer.train(["abc"] * 3, 270)
    toy = GPT(small_config(tok.n_vocab, 64, 1, 32))
    run.save("toy.pt", {"model": toy.state_dict(), "model_config": dataclasses.asdict(toy.cfg),
                        "tokenizer": tok.state()})
    code, *_, err = command("--method", "tandem", *TINY, "--senior", str(stories), "--out", "o",
                            *options.split())
    assert code == 2 and len(errors(err)) == 1
    assert re.search(message, err), err
    assert not Path("o").exists()


# ---- memory ----

@pytest.mark.parametrize("method, role, bytes_each", [
    ("atod", "teacher", 4), ("tandem", "junior", 4 + 2)])  # a junior has a copy that samples
def test_frozen_toys_are_planned_as_they_are_held(command, monkeypatch, method, role, bytes_each):
    held, plan = {}, memory.plan

    def planned(cfg, trained, frozen, *how, **more):
        held.update(frozen)
        found = plan(cfg, trained, frozen, *how, **more)
        assert found[role] == bytes_each * memory.parameters(frozen[role][0]) > 0
        return found
    monkeypatch.setattr(memory, "plan", planned)
    with pytest.raises(SystemExit):
        command("--method", method, "--bf16", "--dry-run")
    assert list(held) == [role]



def test_the_plan_of_weights_adapters_optimizer_and_caches_is_what_is_allocated(stories):
    cfg = tandem.Config(env="sums", senior=str(stories), prompts=2, group=3, max_new=8, lr=0.0,
                        compile="off", test_chains=1, steps=1)
    r = tandem.setup(cfg)
    tandem.step(r)
    parts = memory.plan(cfg, r.model.cfg, {}, 6, 100, 4, adapters=16, pair=True)

    def size(tensors):
        return sum({x.data_ptr(): x.numel() * x.element_size() for x in tensors}.values())
    frozen = [p for p in r.model.parameters() if not p.requires_grad]
    moments = [x for state in r.optimizer.state.values() for x in state.values() if x.dim()]
    assert parts["weights"] == size(frozen)
    assert parts["adapters"] == size(run.trained_state(r.model).values())
    assert parts["copy of the start"] == size(r.warm.values())
    grads = [p.grad for p in r.model.parameters() if p.grad is not None]
    assert parts["gradients and optimizer"] == size(moments) + size(grads)
    assert parts["caches"] == size(x for layer in r.team.whole["caches"][0] for x in layer)
    pools = {x.data_ptr() for layer in r.solo.whole["caches"][0] for x in layer}
    assert pools <= {x.data_ptr() for layer in r.team.whole["caches"][0] for x in layer}


@pytest.mark.parametrize("rank, kv_heads, norm", [(0, 6, False), (0, 2, True), (8, 3, False)])
def test_activations_are_estimated_within_a_quarter(rank, kv_heads, norm):
    shape = GPTConfig(300, 64, 4, heads=6, kv_heads=kv_heads, width=192, head_width=32,
                      ffn_width=512, qk_norm=norm)
    model = GPT(shape)
    if rank:
        model = lora.adapt(model, rank)
    weight_bytes = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in weight_bytes:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        alive = model.hidden(torch.randint(0, 300, (4, 64)))
    planned = memory.activation_bytes(shape, 4, rank, False, 4)
    assert alive.shape == (4, 64, 192) and 0.75 < sum(kept.values()) / planned < 1.25


@pytest.mark.parametrize("rows, micro_rows, most", [(40, 4, 75), (8, 1, 23)])
def test_tandem_on_qwen3_4b_fits_a_card_of_80_and_one_of_24_gb(rows, micro_rows, most):
    cfg = tandem.Config(prompts=16, group=8, micro_rows=micro_rows, recompute=True)
    parts = memory.plan(cfg, QWEN3_4B, {}, rows, 512, 2, adapters=32, pair=True)
    assert memory.parameters(QWEN3_4B) == pytest.approx(4.02e9, rel=0.01)
    assert 0.8 * most < sum(parts.values()) / 1e9 < most


def test_a_dry_run_prints_the_plan_and_leaves_nothing(command, stories):
    with pytest.raises(SystemExit) as ended:
        command("--method", "tandem", *TINY, "--senior", str(stories), "--out", "o", "--dry-run")
    assert ended.value.code == 0 and not Path("o").exists()


@pytest.mark.parametrize("method", [name for name, (_, Config) in METHODS.items()
                                    if hasattr(Config, "dry_run")])
def test_a_dry_run_of_every_method_leaves_a_run_that_is_there_as_it_was(method, command, capsys):
    assert command("--method", "sft", "--env", "guess", "--steps", "1", "--out", "o")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("o").iterdir()}
    with pytest.raises(SystemExit) as ended:
        command("--method", method, "--seed", "5", "--out", "o", "--dry-run")
    assert ended.value.code == 0 and "it fits" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in Path("o").iterdir()}


def test_the_junior_is_the_seniors_own_start_where_it_is_asked_for(command):
    assert command("--method", "tandem", "--env", "guess", "--junior", "self", "--out", "o")[0] == 0
    table = json.loads(Path("o/result.json").read_text())
    assert table["before"]["kl"][0] == 0
    assert open_env(tandem.Config(env="guess")).first
