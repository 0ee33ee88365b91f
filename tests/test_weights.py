"""Public weights: the same logits and text as transformers on random small models of each family,
and one line for whatever does not fit."""
import json
import os

import pytest
import torch

from model import GPT, GPTConfig
from sampler import Sampler

safetensors_torch = pytest.importorskip(
    "safetensors.torch", reason="public weights need safetensors: pip install safetensors")
import weights  # noqa: E402

SIZES = dict(vocab_size=97, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
MODELS = {  # name -> family, settings
    "llama": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, all heads": ("Llama", {"num_key_value_heads": 4}),
    "llama 3.1": ("Llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE}),
    "qwen2.5": ("Qwen2", {"rope_theta": 1e6, "tie_word_embeddings": True}),
    "qwen2.5, untied": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3, untied": ("Qwen3", {"head_dim": 8, "rope_theta": 1e6})}


@pytest.fixture
def public(tmp_path):
    """public(name) -> a random model of transformers, and the folder it is saved in"""
    transformers = pytest.importorskip(
        "transformers", reason="parity needs transformers: pip install transformers")

    def make(name, **saving):
        family, settings = MODELS[name]
        torch.manual_seed(0)
        config = getattr(transformers, family + "Config")(**{**SIZES, **settings})
        model = getattr(transformers, family + "ForCausalLM")(config).eval()
        for p in model.parameters():  # norms and biases away from 1 and 0, logits far enough apart
            torch.nn.init.normal_(p, 1.0, 0.2) if p.dim() == 1 else p.data.mul_(4)
        model.save_pretrained(tmp_path / "public", **saving)
        return model, tmp_path / "public"
    return make


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_greedy_text_equal_those_of_transformers(public, name):
    their, folder = public(name)
    ours, tokens = GPT.from_pretrained(folder), torch.randint(97, (3, 120))
    with torch.no_grad():
        expected = their(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.5  # something to compare
    sampler = Sampler(ours, 3)
    sampler.start()
    sampler.feed(range(3), tokens[:, :9].tolist())
    sampler.sample(40, (), temperature=0.0)
    text = their.generate(tokens[:, :9], max_new_tokens=40, do_sample=False, eos_token_id=None,
                          pad_token_id=0)
    assert torch.equal(sampler.tokens[:, :49], text)


@pytest.mark.parametrize("name", MODELS)
def test_what_we_save_transformers_loads(public, tmp_path, name):
    from transformers import AutoModelForCausalLM
    their, folder = public(name)
    weights.save_pretrained(GPT.from_pretrained(folder), tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    tokens = torch.randint(97, (2, 100))
    assert type(again) is type(their)
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, their(tokens).logits, rtol=0, atol=1e-5)


def test_many_shards_are_one_model(public):
    their, folder = public("qwen3", max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    tokens = torch.randint(97, (2, 50))
    with torch.no_grad():
        expected = their(tokens).logits
        found = GPT.from_pretrained(folder)(tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match="no weights that can be read"):
        GPT.from_pretrained(folder)


# ---- without transformers ----

SMALL = dict(vocab_size=31, context=40, heads=2, kv_heads=2, width=32, head_width=16, ffn_width=48)


@pytest.mark.parametrize("settings", [
    {}, {"tied": False}, {"qkv_bias": True, "kv_heads": 1}, {"qk_norm": True, "head_width": 32},
    {"rope_llama3": (8.0, 1.0, 4.0, 16.0)}])
def test_saved_and_loaded_is_the_same_model(tmp_path, settings):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SMALL, **settings}))
    weights.save_pretrained(model, tmp_path / "m")
    again, tokens = GPT.from_pretrained(tmp_path / "m"), torch.randint(31, (2, 40))
    assert again.cfg == model.cfg and torch.equal(again(tokens), model(tokens))
    assert (again.head.weight is again.embed.weight) == model.cfg.tied
    assert GPT.from_pretrained(tmp_path / "m", context=12).cfg.context == 12


def test_both_extras_at_once_have_no_family(tmp_path):
    with pytest.raises(ValueError, match="no public family"):
        weights.save_pretrained(GPT(GPTConfig(qkv_bias=True, qk_norm=True)), tmp_path / "m")


@pytest.fixture
def saved(tmp_path):
    """A folder as it should be -> (folder, its configuration, its tensors), to spoil"""
    folder = tmp_path / "m"
    weights.save_pretrained(GPT(GPTConfig(**{**SMALL, "kv_heads": 1})), folder)
    config = json.loads((folder / "config.json").read_text())
    return folder, config, safetensors_torch.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("change, word", [
    ({"model_type": "gpt2"}, "unknown architecture 'gpt2'"),
    ({"model_type": None}, "unknown architecture None"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"attention_bias": True}, "attention_bias"),
    ({"use_sliding_window": True}, "use_sliding_window"),
    ({"quantization_config": {"bits": 4}}, "quantization"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding"),
    ({"layer_types": ["sliding_attention"] * 2}, "sliding"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "yarn"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 4}}, "low_freq_factor"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
      "rope_scaling": {"type": "yarn", "factor": 4}}, "yarn"),
    ({"num_hidden_layers": 3}, "lacks the tensor model.layers.2."),
    ({"num_hidden_layers": 1}, "no place for: model.layers.1."),
    ({"intermediate_size": 64}, "shape"),
    ({"num_key_value_heads": 2}, "shape"),
    ({"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads = 3 does not divide"),
    ({"head_dim": 7}, "a head's width is 7"),
    ({"tie_word_embeddings": False}, "lacks the tensor lm_head.weight"),
    ({"model_type": "qwen2"}, "lacks the tensor"),
    ({"model_type": "qwen3"}, "lacks the tensor")])
def test_a_configuration_that_does_not_fit_is_one_line(saved, change, word):
    folder, config, _ = saved
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=word) as found:
        GPT.from_pretrained(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("spoil, word", [
    (lambda t: t.pop("model.norm.weight"), "lacks the tensor model.norm.weight"),
    (lambda t: t.update({"model.extra.weight": torch.zeros(2)}),
     "no place for: model.extra.weight"),
    (lambda t: t.update({"model.norm.weight": torch.zeros(5)}),
     r"model.norm.weight has shape \[5\]")])
def test_tensors_that_do_not_fit_are_one_line(saved, spoil, word):
    folder, _, tensors = saved
    spoil(tensors)
    safetensors_torch.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=word) as found:
        GPT.from_pretrained(folder)
    assert "\n" not in str(found.value)


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("name, content, word", [
    ("config.json", None, "no model's configuration"),
    ("config.json", "{", "no model's configuration"),
    ("config.json", "[]", "no model's configuration"),
    ("config.json", "{}", "model_type"),
    ("config.json", '{"model_type": "llama"}', "lacks"),
    ("model.safetensors", None, "no weights"),
    ("model.safetensors", "garbage", "no weights"),
    (INDEX, "{}", "no weights"),
    (INDEX, '{"weight_map": {"a": "../x"}}', "outside")])
def test_files_that_are_missing_or_cut_are_one_line(saved, name, content, word):
    folder, *_ = saved
    (folder / ("model.safetensors" if name == INDEX else name)).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=word) as found:
        GPT.from_pretrained(folder)
    assert "\n" not in str(found.value)


def test_bf16_weights_load_as_fp32(saved):
    folder, _, tensors = saved
    half = {name: x.bfloat16() for name, x in tensors.items()}
    safetensors_torch.save_file(half, folder / "model.safetensors")
    assert {p.dtype for p in GPT.from_pretrained(folder).parameters()} == {torch.float32}


# ---- configurations as people have them ----

def rewrite(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize("value", [None, [], {}, "4", -1, 0, 1.5, 10**9, True, float("nan")])
@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads", "hidden_size",
                                  "vocab_size", "intermediate_size", "max_position_embeddings"])
def test_a_size_that_is_none_is_one_line(saved, name, value):
    folder = saved[0]
    rewrite(folder, {name: value})
    with pytest.raises(ValueError, match=f"config.json: .*{name}") as found:
        GPT.from_pretrained(folder)
    assert "\n" not in str(found.value) and len(str(found.value)) < 300


@pytest.mark.parametrize("text", ["null", "[]", '"llama"', "3", '{"model_type": null}',
                                  '{"model_type": ["llama"]}', "[" * 100_000, ""])
def test_a_configuration_of_another_kind_is_one_line(saved, text):
    folder = saved[0]
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json") as found:
        GPT.from_pretrained(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("change", [
    {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5},
    {"rope_scaling": None, "rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}},
    {"rope_theta": 500000, "use_sliding_window": True, "max_window_layers": 1},
    {"rope_theta": 5e5, "use_sliding_window": True, "max_window_layers": 28, "hidden_act": "swish"},
    {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 1.0}},
    {"rope_theta": 5e5, "model_type": "qwen2", "attention_bias": True},
    {"rope_theta": 5e5, "use_sliding_window": True, "layer_types": ["full_attention"]}])
def test_what_transformers_reads_as_full_attention_and_plain_positions_is_read_alike(saved, change):
    folder = saved[0]
    path = folder / "config.json"
    own = json.loads(path.read_text())
    own = {k: x for k, x in own.items() if not k.startswith("rope")}
    path.write_text(json.dumps({**own, "num_hidden_layers": 1, **change}))
    assert weights.read_config(folder)["rope_base"] == 5e5


def test_no_context_is_longer_than_the_models_own(saved):
    assert weights.read_config(saved[0], context=40)["context"] == 40
    with pytest.raises(ValueError, match="41 tokens is more than the model's 40"):
        GPT.from_pretrained(saved[0], 41)


def test_tied_weights_may_stand_under_the_heads_name(tmp_path):
    model = GPT(GPTConfig(vocab_size=50, context=16, layers=1, tied=True))
    weights.save_pretrained(model, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors_torch.load_file(path)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    safetensors_torch.save_file(tensors, path)
    assert torch.equal(GPT.from_pretrained(tmp_path).embed.weight, model.embed.weight)
    tensors["model.embed_tokens.weight"] = tensors["lm_head.weight"].clone()  # both, and equal
    tensors["model.rotary_emb.cos_cached"] = torch.ones(2)  # what older versions stored, too
    safetensors_torch.save_file(tensors, path)
    assert torch.equal(GPT.from_pretrained(tmp_path).embed.weight, model.embed.weight)
    tensors["lm_head.weight"][0] += 1
    safetensors_torch.save_file(tensors, path)
    with pytest.raises(ValueError, match="tie_word_embeddings, but lm_head.weight is another"):
        GPT.from_pretrained(tmp_path)


def test_llama3s_original_context_is_the_models_own_where_the_file_has_none(saved):
    folder, config, _ = saved
    rope = {"rope_type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4}
    (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": rope}))
    assert weights.read_config(folder)["rope_llama3"][3] == config["max_position_embeddings"]


def test_a_saved_model_can_be_read_by_whom_the_umask_allows(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert (saved[0] / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_model_that_is_saved_over_a_model_in_shards_is_the_one_that_loads(tmp_path):
    old, new = (GPT(GPTConfig(vocab_size=50, context=16, layers=1)) for _ in "on")
    weights.save_pretrained(old, tmp_path)
    shard = "model-00001-of-00001.safetensors"
    (tmp_path / "model.safetensors").rename(tmp_path / shard)
    names = safetensors_torch.load_file(tmp_path / shard)
    index = {"weight_map": dict.fromkeys(names, shard)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(GPT.from_pretrained(tmp_path).embed.weight, old.embed.weight)
    index = (tmp_path / "model.safetensors.index.json").read_text()
    weights.save_pretrained(new, tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)  # one file goes before many
    assert torch.equal(GPT.from_pretrained(tmp_path).embed.weight, new.embed.weight)
    weights.save_pretrained(new, tmp_path)
    assert torch.equal(GPT.from_pretrained(tmp_path).embed.weight, new.embed.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_save_that_is_interrupted_leaves_a_folder_that_is_old_new_or_refused(tmp_path, monkeypatch):
    old, new = (GPT(GPTConfig(vocab_size=50, context=16, layers=1)) for _ in "on")
    for place in ("os.replace", "run.write", "safetensors.torch.save_file", "pathlib.Path.unlink"):
        folder = tmp_path / place
        weights.save_pretrained(old, folder)

        def dies(*args, **how):
            raise KeyboardInterrupt
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, dies)
            weights.save_pretrained(new, folder)
        try:
            found = GPT.from_pretrained(folder).embed.weight
        except ValueError as error:
            assert "config.json" in str(error)
        else:
            assert torch.equal(found, old.embed.weight)
