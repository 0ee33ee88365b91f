"""What every environment promises, as one function to hold yours against:

    from contract import check_env
    def test_mine(): check_env("mine", option=1)

`hidden_task`: all tasks begin with the same text (a secret number), so that the first observation
cannot tell the splits apart.
"""
import os
import random
import subprocess
import sys

import envs
from conftest import REPO

DIGITS = "0123456789"
NASTY = [  # none of these is ever a right answer
    "", " ", "\n", "\n\n\n", "\r\n", "\t", "\x00", "\x00" * 50, "\x1b[31m\x07\x08\x7f",
    "\x85\u2028\u2029", "\ufeff\u200b\u200d",
    "x" * 10_000, "(" * 10_000, "<<" * 5_000, "#" * 10_000, "\n" * 10_000, "9" * 10_000,
    "#### " + "9" * 10_000, "#" + "9" * 5_000,
    "1+" * 5_000, "=" * 100, "((((", "))))", ")(", "[{(<", "<<3+4=7", "3+4=7>>", "<<<>>>", "<<>>",
    "{'a': [1, 2", '{"answer":',
    "#", "##", "###", "####", "#####", "#### ", "####\n", "#### ####", "# # # #", "####x",
    "#### one", "#### $", "#### ,", "#### .", "#### -",
    "nan", "inf", "-inf", "#nan", "#### nan", "#### inf", "#### -Infinity", "#### 1e999", "#1e999",
    "1e999", "0x7f", "#### 0x7f", "#### 1/0", "1/0",
    "#### --5", "#### 5-", "#### 1.2.3", "#### 1 2", "٣+٤=٧", "#٣", "#### ٣", "#### １２", "²", "#²",
    "#### ½", "#Ⅳ", "é ß 日本語 🙂", "\U0010ffff",
    "__import__('os').abort()", "#### __import__('os').abort()", "'; DROP TABLE tasks; --",
    "%s%n%d{0}{}", "../../etc/passwd", "\\", "\\n#",
    "<|end|>", "<|turn|>", "None", "True", "go to", "take from", "a=b=c", "a-b=", "+-=",
    "j+j=j\nj+j=j"]


def check_env(name, *, hidden_task=False, **options):
    env = envs.make(name, **options)
    check_shape(env)
    check_same_task_same_text(env, name, options)
    if not hidden_task:
        check_splits_are_disjoint(env)
    check_garbage_earns_nothing(env)
    check_demonstrations_win(env)
    check_batch_agrees_with_single(env, name, options)


def some_tasks(env, split, n):
    return range(min(n, env.tasks(split) or n))


def play(env, texts):
    """Step through texts until the episode is over -> return, last Step, turns."""
    total = 0.0
    for turn, text in enumerate(texts, 1):
        step = env.step(text)
        assert isinstance(step.observation, str) and isinstance(step.done, bool)
        assert isinstance(step.info, dict)
        total += step.reward
        if step.done:
            break
    return total, step, turn


def check_shape(env):
    for number in (env.max_turns, env.max_new, env.context, env.problems, env.max_gap,
                   env.warm_steps):
        assert isinstance(number, int) and number > 0
    assert isinstance(env.mark, str) and env.mark
    assert env.targets and all(0 <= target <= 1 for target in env.targets.values())
    assert all(env.tasks(s) is None or env.tasks(s) > 0 for s in envs.SPLITS)


def check_same_task_same_text(env, name, options):
    """In any order, after play, on a fresh object, and in another process with other hashes."""
    tasks = [(task, split) for split in envs.SPLITS for task in some_tasks(env, split, 10)]
    texts = {key: env.reset(*key) for key in tasks}
    assert all(isinstance(text, str) and text for text in texts.values())
    fresh = envs.make(name, **options)
    for key in reversed(tasks):
        env.step("disturb")
        assert env.reset(*key) == fresh.reset(*key) == texts[key], f"task {key} changed its text"
    code = (f"import envs; env = envs.make({name!r}, **{options!r}); "
            f"print(ascii([env.reset(*key) for key in {tasks!r}]))")
    other = subprocess.run([sys.executable, "-c", code], cwd=REPO,
                           env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True,
                           text=True)
    assert other.stdout.strip() == ascii(list(texts.values())), other.stderr


def check_splits_are_disjoint(env):
    seen = {split: {" ".join(env.reset(task, split).split())
                    for task in some_tasks(env, split, 400)} for split in envs.SPLITS}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not seen[a] & seen[b], (f"{a} and {b} share {sorted(seen[a] & seen[b])[0]!r}: draw a "
                                       "task until envs.split_of(its text) is the split")


def check_garbage_earns_nothing(env):
    for i, text in enumerate(NASTY):
        env.reset(i % (env.tasks("train") or 1000), "train")
        total, step, turns = play(env, [text] * (env.max_turns + 1))
        assert step.done and turns <= env.max_turns, f"{text[:40]!r}: no end after {turns} turns"
        assert total == 0 and not step.info["success"], f"{text[:40]!r} earned {total}"
    rng = random.Random(0)
    for task in some_tasks(env, "train", 30):  # whatever is said, the return is a share of 1
        env.reset(task, "train")
        total, step, _ = play(env, [rng.choice(NASTY + list(DIGITS)) for _ in range(env.max_turns)])
        assert 0 <= total <= 1 and step.done


def check_demonstrations_win(env):
    """A player of every skill that can be warmed up solves its task; the same dice give the same
    demonstration."""
    for skill in env.targets:
        for split in envs.SPLITS:
            for task in some_tasks(env, split, 20):
                env.reset(task, split)
                answers = env.demo(random.Random(task), skill)
                assert answers == env.demo(random.Random(task), skill)
                total, step, turns = play(env, answers)
                which = f"{split} task {task}"
                assert step.done and turns <= env.max_turns, f"{skill} does not finish {which}"
                won = abs(total - 1) < 1e-9 and step.info["success"]
                assert won, f"{skill} earns {total} on {which}"


def check_batch_agrees_with_single(env, name, options):
    """Six games side by side, two of them of one task, each row ending when it ends, against one
    game after another."""
    tasks = [t % (env.tasks("valid") or 99) for t in (0, 1, 2, 2, 3, 4)]
    batch = envs.Batch(name, **options)
    rng = random.Random(1)
    skill = next(iter(env.targets))
    env.reset(tasks[0], "valid")
    said = [[rng.choice(NASTY) for _ in range(env.max_turns)] for _ in tasks]
    said[0] = (env.demo(random.Random(0), skill) + said[0])[:env.max_turns]  # one row of them wins
    for _ in range(2):  # the second time on games that were played before
        observations, alive = batch.reset_many(tasks, "valid"), list(range(len(tasks)))
        heard = {row: [] for row in alive}
        for turn in range(env.max_turns):
            steps = batch.step_many(alive, [said[row][turn] for row in alive])
            for row, step in zip(alive, steps):
                heard[row].append(step)
            alive = [row for row, step in zip(alive, steps) if not step.done]
        for row, task in enumerate(tasks):
            assert env.reset(task, "valid") == observations[row]
            assert [env.step(text) for text, _ in zip(said[row], heard[row])] == heard[row]
        assert heard[0][-1].info["success"] and not alive
