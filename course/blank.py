"""Exercises: one function of the project with its body taken out, for you to write.

    python course/blank.py                           # the list, lesson by lesson
    python course/blank.py tandem.next_author DIR    # a copy of the project in DIR, with the blank

The copy is the project file by file. Only the body of that function is gone. Signature and
docstring stay. Lesson, signature, docstring and hint say all that you need. The command that is
printed grades your answer; it needs pytest (pip install -e '.[test]').
"""
import ast
import os
import shlex
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LEFT_OUT = ("out", ".git", "__pycache__", ".venv")  # where there is no git to ask

# function -> lesson, the tests that grade it and their file, a hint
BLANKS = {
    "grpo.group_advantages": {
        "lesson": 1, "file": "tests/test_grpo.py",
        "tests": ["test_advantages_by_hand_with_the_samples_standard_deviation",
                  "test_advantages_leave_out_invalid_episodes_and_are_zero_for_fewer_than_two",
                  "test_equal_fractional_rewards_give_exactly_zero"],
        "hint": "divide by the number of valid episodes, and by n - 1 under the root"},
    "grpo.clipped_loss": {
        "lesson": 1, "file": "tests/test_grpo.py",
        "tests": ["test_clipped_loss_by_hand_and_no_gradient_where_the_clip_acts",
                  "test_masked_tokens_of_any_log_prob_leave_no_nan"],
        "hint": "set the log-ratio to 0 where the weight is 0, before you take exp"},
    "rollout.pass_at_k": {
        "lesson": 1, "file": "tests/test_grpo.py",
        "tests": ["test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer"],
        "hint": "count the choices of k without a right one; ValueError for impossible numbers"},
    "sampler.draw": {
        "lesson": 2, "file": "tests/test_sampler.py",
        "tests": ["test_tokens_of_probability_zero_are_never_drawn_at_either_end",
                  "test_draw_follows_the_distribution"],
        "hint": "cumsum, then the first place that is greater than u times the last sum"},
    "sampler.uniform": {
        "lesson": 2, "file": "tests/test_sampler.py",
        "tests": ["test_uniform_numbers_have_the_right_mean_variance_and_histogram",
                  "test_neighbouring_keys_and_counts_are_not_correlated",
                  "test_uniform_depends_on_all_of_the_key_and_only_on_key_and_count"],
        "hint": "mix() takes 32 bits: give it the count and both halves of the key; keep 24 bits"},
    "tandem.next_author": {
        "lesson": 3, "file": "tests/test_tandem.py",
        "tests": ["test_next_author_by_hand"],
        "hint": "a token was written, so since grows first; torch.where chooses row by row"},
    "tandem.loss_mask": {
        "lesson": 3, "file": "tests/test_tandem_update.py",
        "tests": ["test_a_missing_author_mask_is_an_error",
                  "test_loss_mask_is_what_the_senior_sampled_and_a_weight_for_the_junior",
                  "test_logits_at_the_juniors_positions_get_exactly_no_gradient"],
        "hint": "rows.mask says what was sampled, rows.author says by whom"},
    "beliefs.WorldModel.transition_prompt": {
        "lesson": 4, "file": "tests/test_mediation.py",
        "tests": ["test_prompts_hold_exactly_what_a_formulation_may_see",
                  "test_the_history_cannot_reach_past_a_strict_state_and_does_past_a_leaky_one"],
        "hint": "the ids of the state, the end of a turn, what asked() makes; no history"},
    "worldmodel.factorized_advantages": {
        "lesson": 4, "file": "tests/test_worldmodel.py",
        "tests": ["test_the_trees_advantages_equal_plain_loops",
                  "test_groups_of_equals_and_of_one_get_exactly_nothing"],
        "hint": "average over the last dimension, level by level; relative() does the rest"},
    "envs.record.fact_f1": {
        "lesson": 4, "file": "tests/test_worldmodel.py",
        "tests": ["test_the_terms_of_the_reward_by_hand"],
        "hint": "facts are a set: one that is said twice counts once"},
    "atod.schedule": {
        "lesson": 5, "file": "tests/test_atod.py",
        "tests": ["test_the_schedule_at_its_ends_in_the_middle_and_beyond"],
        "hint": "the first line of the docstring; T counts as at least 1, so step 0 is (1, 1)"},
    "atod.t_dur": {
        "lesson": 5, "file": "tests/test_atod.py",
        "tests": ["test_the_papers_example_of_turn_weights",
                  "test_turn_weights_of_flat_short_and_empty_trajectories"],
        "hint": "scale d and h within the trajectory, without its empty turns; then combine"},
    "atod.hybrid_advantage": {
        "lesson": 5, "file": "tests/test_atod.py",
        "tests": ["test_the_hybrid_advantage_by_hand"],
        "hint": "gather the weight of each token's turn; -1 is no turn; detach at the end"},
    "claims.interval": {
        "lesson": 6, "file": "tests/test_reproduce.py",
        "tests": ["test_an_interval_by_hand"],
        "hint": "Student's t by number of seeds is in T_95, above ten it is quantile(n - 1); the "
                "variance is divided by n - 1"},
    "claims.verdict": {
        "lesson": 6, "file": "tests/test_reproduce.py",
        "tests": ["test_verdicts_by_hand", "test_the_margin_of_as_good_can_be_chosen"],
        "hint": "look at both ends of the interval; one seed says nothing"},
}


# ---- a function without its body ----

def find(name, root=ROOT):
    """"beliefs.WorldModel.history" -> its file, relative to root, and the names inside of it."""
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        folder = os.path.join(*parts[:n])
        for path in (folder + ".py", os.path.join(folder, "__init__.py")):
            if os.path.isfile(os.path.join(root, path)):
                return path, parts[n:]
    sys.exit(f"error: there is no file for {name}")


def node_of(text, names):
    """The ast node of a function, or of a method of a class."""
    node = ast.parse(text)
    for name in names:
        named = [child for child in node.body if getattr(child, "name", "") == name]
        if not named:
            sys.exit(f"error: there is no {'.'.join(names)} in the file that should hold it")
        node = named[0]
    return node


def without_body(text, names):
    """The text of a file, with the body of one function replaced by a TODO."""
    node, lines = node_of(text, names), text.split("\n")
    documented = ast.get_docstring(node) is not None
    first = node.body[0]

    # the body begins behind the docstring or the signature, with comments
    begin = first.end_lineno if documented else first.lineno - 1
    while not documented and is_comment_or_empty(lines[begin - 1]):
        begin -= 1

    # comments behind the last statement are part of it, as far as they are indented
    end = here = node.end_lineno
    while here < len(lines) and is_comment_or_empty(lines[here]):
        here += 1
        if indentation(lines[here - 1]) > node.col_offset:
            end = here
    indent = " " * first.col_offset
    todo = f'{indent}raise NotImplementedError("TODO: {names[-1]}")'
    ending = "\r" if lines[end - 1].endswith("\r") else ""
    return "\n".join(lines[:begin] + [todo + ending] + lines[end:])


def is_comment_or_empty(line):
    return not line.strip() or line.lstrip().startswith("#")


def indentation(line):
    """Columns in front of the text; 0 for an empty line."""
    return len(line) - len(line.lstrip()) if line.strip() else 0


def blank(name, root):
    """Take the body of a function out of the project in root -> the file that was changed."""
    path, names = find(name, root)
    full = os.path.join(root, path)
    with open(full, encoding="utf-8", newline="") as file:
        text = file.read()
    with open(full, "w", encoding="utf-8", newline="") as file:
        file.write(without_body(text, names))
    return path


# ---- a copy of the project ----

def files(root=ROOT, new=False):
    """What a copy holds: the files that git tracks (new: those it does not know yet, too). Without
    git: all but LEFT_OUT."""
    if os.path.exists(os.path.join(root, ".git")) and shutil.which("git"):
        command = ["git", "-C", root, "ls-files", "-z", "--cached"]
        command += ["--others", "--exclude-standard"] if new else []
        told = subprocess.run(command, capture_output=True)
        found = sorted(set(told.stdout.decode().split("\0")) - {""})
        if told.returncode == 0:
            return [path for path in found if os.path.isfile(os.path.join(root, path))]
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in LEFT_OUT]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def copy_project(to, root=ROOT, new=False):
    """Copy the project to a folder that is empty or not there yet."""
    if os.path.lexists(to) and not os.path.isdir(to):
        sys.exit(f"error: {to} is not a folder")
    if os.path.isdir(to) and os.listdir(to):
        sys.exit(f"error: {to} is not empty; name a new folder")
    try:
        for path in files(root, new):  # a list: what is copied is not copied again
            target = os.path.join(to, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(os.path.join(root, path), target)
    except OSError as error:
        sys.exit(f"error: cannot copy the project to {to}: {error.strerror}")


# ---- the command ----

def node_ids(entry):
    """The tests of an exercise, as pytest names them."""
    return [f"{entry['file']}::{test}" for test in entry["tests"]]


def grading(folder, entry):
    """The command that grades what is in a folder, a test a line."""
    command = " \\\n    ".join(["python -m pytest -q", *node_ids(entry)])
    return f"cd {shlex.quote(folder)}\n{command}"


def listing(table, about):
    """A table of exercises as text, lesson by lesson. about: the entry that is shown."""
    lines, width = [], max(map(len, table))
    for lesson in sorted({entry["lesson"] for entry in table.values()}):
        lines.append(f"lesson {lesson}")
        lines += [f"  {name:{width}}  {entry[about]}" for name, entry in table.items()
                  if entry["lesson"] == lesson]
    return "\n".join(lines)


def main(argv):
    if not argv:
        print(listing(BLANKS, "hint"))
        return
    if argv[0] in ("-h", "--help"):
        return print(__doc__)
    if argv[0] not in BLANKS:
        sys.exit(f"error: unknown blank {argv[0]}; one of: {' '.join(BLANKS)}")
    if len(argv) != 2:
        sys.exit("error: name a blank and a new folder: python course/blank.py NAME DIR")
    name, folder = argv
    copy_project(folder)
    path = blank(name, folder)
    print(f"{folder}/{path}: write the body of {name}")
    print(f"hint: {BLANKS[name]['hint']}")
    print(f"\ngrade it with\n\n{grading(folder, BLANKS[name])}")


if __name__ == "__main__":
    main(sys.argv[1:])
