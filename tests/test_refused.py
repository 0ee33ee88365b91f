"""Bad input: one line on stderr, exit code 2, and nothing overwritten."""
import pytest

from conftest import errors, tree

REFUSED = {  # of every run, shown for the default method, tandem
    "unknown option": ("--stpes 3", "--stpes"),
    "abbreviated option": ("--step 3", "--step"),
    "not a number": ("--steps few", "--steps"),
    "unknown method": ("--method ppo", "tandem"),
    "unknown env": ("--env chess", "arithmetic"),
    "unknown tokenizer": ("--tokenizer gpt5", "gpt2"),
    "unknown device": ("--device tpu", "cpu"),
    "unknown compile": ("--compile maybe --cache fresh", "auto"),
    "unknown split": ("--final-split train", "valid"),
    "huge seed": ("--seed " + "9" * 30, "--seed"),
    "no steps": ("--steps 0", "--steps"),
    "width": ("--width 33", "--width"),
    "no test problems": ("--test-problems -1", "--test-problems"),
    "negative learning rate": ("--lr -1", "--lr"),
    "learning rate that is none": ("--lr nan", "--lr"),
    "infinite penalty": ("--kl inf", "--kl"),
    "negative threads": ("--threads -1", "--threads"),
    "negative max-new": ("--max-new -5", "--max-new"),
    "levels in a world without": ("--level 2", "--level"),
    "group of one": ("--group 1", "--group"),
    "minibatches": ("--minibatches 3", "--minibatches"),
    "greedy training": ("--temperature 0", "--temperature"),
    "no gradient": ("--grad-clip 0", "--grad-clip"),
    "prompt that does not fit": ("--context 8", "--context 8"),
    "missing jsonl": ("--env gsm8k --data no.jsonl", "no.jsonl"),
    "malformed jsonl": ("--env gsm8k --data bad.jsonl", "bad.jsonl, line 3"),
    # models
    "unknown skill": ("--skill expert", "senior"),
    "missing senior": ("--senior no.pt", "no.pt"),
    "corrupt senior": ("--senior corrupt.pt", "corrupt.pt"),
    "senior is a jsonl": ("--senior bad.jsonl", "bad.jsonl"),
    "senior is a folder without checkpoint": ("--senior foreign", "foreign"),
    "prompt that does not fit the senior": ("--method sft --senior short.pt", "fit"),
    "cache under a file": ("--method grpo --cache regular/c", "regular/c"),
    # folders
    "out of another run": ("--out other", "--resume"),
    "out with foreign files": ("--out foreign", "another --out"),
    "out under a file": ("--out regular/o", "another --out"),
    "out is a file": ("--out regular", "another --out"),
    "resume with another option": ("--resume --out other --seed 7", "--seed"),
    "resume by another method": ("--resume --out other --method grpo", "--method sft, not grpo"),
    "resume of garbage": ("--resume --out other --method sft", "other"),
    "resume of a config that is none": ("--resume --out listed", "listed/config.json")}
TANDEM = {
    "unknown schedule": ("--schedule weekly", "alternate"),
    "a learning rate that overflows": ("--lr 1e39", "--lr is at most 1,000,000"),
    "a warm start's that overflows": ("--sft-lr 1e308", "--sft-lr is at most 1,000,000"),
    "a width that overflows": (f"--width {32 * 10**30}", "--width is at most 131,072"),
    "layers without end": ("--layers 1000000000", "--layers is at most 1,024"),
    "steps that overflow": (f"--steps {10**30}", "--steps is at most 1,000,000,000"),
    "turns without end": ("--turns 100000", "--turns is at most 10,000"),
    "skill of a senior that is given": ("--senior sums.pt --skill senior", "--skill"),
    "target of a junior that is given": ("--junior sums.pt --junior-target 0.5", "--junior-target"),
    "when p moves, without where to": ("--p-from 0.3", "--p-end"),
    "unknown notation of the junior": ("--junior-skill x --junior auto", "graded"),
    "env without that junior": ("--env guess --junior-skill graded", "'graded'"),
    "unknown reference": ("--kl-to x", "warm"),
    "no weight of a penalty": ("--kl-to junior", "--kl"),
    "p above 1": ("--p 1.5", "--p"),
    "a last p that is no share": ("--p-end -0.5", "--p-end -0.5 is no share"),
    "layers that the senior has not": ("--senior sums.pt --layers 3", "--layers 3, but sums.pt has"),
    "context that the senior has not": ("--senior sums.pt --context 48", "--context 48, but sums.pt"),
    "junior's width": ("--junior-width 40", "--junior-width"),
    "junior of another vocabulary": ("--senior sums.pt --junior guess.pt", "vocabulary"),
    "junior of another context": ("--senior sums.pt --junior short.pt --max-new 4", "differ in context")}
TANDEM["demonstrations that are too long to say"] = ("--max-new 3 --cache none", "raise --max-new")
OTHERS = {  # options that are not this method's
    "nothing to resume, and which method?": ("--resume --out nowhere", "nowhere holds no run yet"),
    "grpo: no junior": ("--method grpo --junior auto", "--junior"),
    "grpo: no junior to be close to": ("--method grpo --kl 1 --kl-to junior", "--kl-to"),
    "sft: no group": ("--method sft --group 4", "--group")}
WORLDMODEL = {
    "one state": ("--A 1", "--A"),
    "one next state": ("--B 1", "--B"),
    "one observation": ("--C 1", "--C"),
    "no states": ("--flat --A 0", "--A"),
    "unknown formulation": ("--formulation loose", "stateless"),
    "unknown term": ("--terms format,sub", "'sub'"),
    "the reward of a state where there is none": ("--formulation stateless --terms dedup", "--terms"),
    "unknown scale": ("--scale std", "batch"),
    "no text world": ("--env arithmetic", "house"),
    "unknown env": ("--env chess", "house"),
    "unknown level": ("--levels 9", "1 to 4"),
    "a level that is none": ("--levels x", "--levels"),
    "flat leaky": ("--flat --formulation leaky", "--flat"),
    "two updates a batch": ("--minibatches 2", "--minibatches"),
    "KL": ("--kl 0.1", "--kl"),
    "temperature": ("--temperature 0.6", "--temperature"),
    "no gradient": ("--grad-clip 0", "--grad-clip"),
    "width": ("--width 33", "--width"),
    "context": ("--context 40", "raise --context"),
    "leaky group of one": ("--formulation leaky --group 1", "--group"),
    "huge window": ("--window 41", "--window"),
    "negative window": ("--window -1", "--window"),
    "senior without the roles": ("--senior sums.pt", "roles"),
    "missing senior": ("--senior no.pt", "no.pt"),
    "corrupt senior": ("--senior corrupt.pt", "corrupt.pt"),
    "unknown tokenizer": ("--tokenizer gpt5", "gpt2"),
    "data": ("--data bad.jsonl", "--data"),
    "cache under a file": ("--cache regular/c", "regular/c"),
    "out of another run": ("--out other", "--resume")}
REFUSED.update({f"tandem: {name}": (f"--method tandem {args}", word)
                for name, (args, word) in TANDEM.items()})
REFUSED.update(OTHERS)
REFUSED.update({f"worldmodel: {name}": (f"--method worldmodel {args}", word)
                for name, (args, word) in WORLDMODEL.items()})


@pytest.mark.parametrize("args, word", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line_and_code_2_and_overwrites_nothing(command, surroundings, args, word):
    before = tree()
    code, _, err = command(*args.split())
    lines = [line for line in err.splitlines() if not line.startswith("warning:")]
    assert code == 2 and len(lines) == 1, err
    assert lines[0].startswith("error: ") and word in lines[0], err
    assert {p: x for p, x in tree().items() if p in before} == before


def test_a_refused_command_can_be_corrected_and_typed_again(command, surroundings):
    for wrong in ("--context 8", "--senior corrupt.pt", "--skill none"):
        code, _, err = command("--method", "sft", *wrong.split())
        assert code == 2 and len(errors(err)) == 1
    assert command("--method", "sft")[0] == 0
