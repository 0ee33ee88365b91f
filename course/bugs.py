"""Exercises: silent bugs. You are told what a bug is, and you find what gives it away.

    python course/bugs.py                   # the list
    python course/bugs.py batch_mean DIR    # a copy of the project in DIR, with that bug in it
    python course/bugs.py batch_mean        # the answer: what gives it away

A training run with a silent bug ends without an error, and its curves look right, or nearly right.
The bugs are patches of a few lines in course/bugs/. Look for what gives a bug away before you read
its patch. In a copy of the project, `git apply -R course/bugs/NAME.patch` takes it out again.
"""
import os
import shlex
import shutil
import subprocess
import sys

from blank import ROOT, copy_project, grading, listing

# name -> lesson; what it is; options to train with; what you see; what gives it away; the tests
# that fail, and their file
BUGS = {
    "batch_mean": {
        "lesson": 1, "file": "tests/test_grpo.py",
        "is": "the mean of the whole batch stands for the mean of the group",
        "run": "--method grpo --steps 40",
        "see": "success rises",
        "tell": "`loss`: near 0 in a right program, as the advantages of a group sum to 0; in 40 "
                "updates it was .014 at most, and .11 with the bug. On a hard question even the "
                "average chain is below the batch's mean and is pushed down",
        "tests": ["test_advantages_by_hand_with_the_samples_standard_deviation"]},
    "end_token": {
        "lesson": 1, "file": "tests/test_rollout.py",
        "is": "the end token is sampled, and then left out of the loss: ending is not trained",
        "run": "--method grpo --steps 40",
        "see": "success rises",
        "tell": "`tokens`: an answer of six lines has 39 with its end, and 38 are counted",
        "tests": ["test_rollout_keeps_sampled_ids_and_marks_exactly_them"]},
    "answer_leak": {
        "lesson": 1, "file": "tests/envs/test_protocol.py",
        "is": "the question shows its answer",
        "run": "--method grpo --steps 40",
        "see": "success rises",
        "tell": "samples.txt, which shows the prompts as they are; and `malformed` is some .09 on "
                "average over 40 updates (.02 in a right program): lines do not matter",
        "tests": ["test_every_chain_has_the_asked_number_of_lines",
                  "test_private_notation_decodes_to_the_same_chain"]},
    "stale_logp": {
        "lesson": 2, "file": "tests/test_grpo.py",
        "is": "the ratio is to the policy of the update before, not to the one that sampled",
        "run": "--method grpo --steps 40",
        "see": "success rises",
        "tell": "`mismatch_max` and `mismatch_kl`: in 40 updates they were 3e-5 and 3e-9 at most, "
                "and 1.4 and .002 with the bug, from the second update on. With --minibatches 2 a "
                "right run has a mismatch_kl of .006, too: there only mismatch_max tells",
        "tests": ["test_reward_and_the_kl_term_both_move_the_model"]},
    "mask_shift": {
        "lesson": 3, "file": "tests/test_tandem_update.py",
        "is": "the mask is one token early: it takes the author of the token that follows",
        "run": "--method tandem --steps 40",
        "see": "success rises",
        "tell": "no metric: the mask, printed beside the authors of one row. With "
                "PYTHONPATH=tests:. do `from test_tandem_update import team_rows` and "
                "`_, rows = team_rows()`, and print rows.mask[0], rows.author[0] and "
                "tandem.loss_mask(rows)[0]",
        "tests": ["test_loss_mask_is_what_the_senior_sampled_and_a_weight_for_the_junior",
                  "test_logits_at_the_juniors_positions_get_exactly_no_gradient"]},
    "junior_trained": {
        "lesson": 3, "file": "tests/test_tandem.py",
        "is": "but for the first of a word, the junior's tokens are marked as the senior's",
        "run": "--method tandem --steps 40",
        "see": "success rises, and the coin is fair (`senior_draws`)",
        "tell": "`senior_share`: it should be near p, and is .91 at p = .5",
        "tests": ["test_with_p_one_or_zero_one_of_the_two_writes_alone_and_as_in_a_sampler_of_its"
                  "_own"]},
    "history_leak": {
        "lesson": 4, "file": "tests/test_mediation.py",
        "is": "in training, the prompt of the next state shows the last observation too",
        "run": "--method worldmodel --steps 5 --warm-steps 300",
        "see": "the reward rises",
        "tell": "`history leak` of the final table: exactly 0 for a strict model, and not here",
        "tests": ["test_the_history_cannot_reach_past_a_strict_state_and_does_past_a_leaky_one"]},
    "wrong_turn": {
        "lesson": 5, "file": "tests/test_atod.py",
        "is": "every turn gets the T-DUR weight of the turn before",
        "run": "--method atod --steps 40",
        "see": "success rises; kappa, rho and mean_w are as they should be",
        "tell": "no column of the metrics: the advantages of one episode, by hand",
        "tests": ["test_the_hybrid_advantage_by_hand"]},
}


def patch_of(name):
    return os.path.join(ROOT, "course", "bugs", f"{name}.patch")


def plant(name, folder):
    """Put a bug into a copy of the project -> "", or why it could not be done."""
    command = ["patch", "-p1", "--batch", "--silent", "-i", patch_of(name)]
    if shutil.which("git"):
        command = ["git", "apply", patch_of(name)]
    # a folder inside of another project is not part of that one
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.abspath(folder))}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip() if done.returncode else ""


def main(argv):
    if not argv:
        print(listing(BUGS, "is"))
        return
    if argv[0] in ("-h", "--help"):
        return print(__doc__)
    if argv[0] not in BUGS:
        sys.exit(f"error: unknown bug {argv[0]}; one of: {' '.join(BUGS)}")
    if len(argv) > 2:
        sys.exit("error: name a bug and a new folder: python course/bugs.py NAME DIR")
    name, bug = argv[0], BUGS[argv[0]]
    if len(argv) == 1:
        print(f"{name}: {bug['is']}\ngiven away by {bug['tell']}\n\nthe tests that fail:\n")
        print(grading("DIR", bug))
        return
    if not shutil.which("git") and not shutil.which("patch"):
        sys.exit("error: to plant a bug you need git or patch; install one of them")
    copy_project(argv[1])
    problem = plant(name, argv[1])
    if problem:
        sys.exit(f"error: {name}.patch does not apply: {problem.splitlines()[0]}")
    print(f"{argv[1]}: the project with a bug: {bug['is']}\ntrain there:\n"
          f"  cd {shlex.quote(argv[1])} && python train.py {bug['run']}\n"
          f"what you will see: {bug['see']}")
    print("what gives it away? Look into metrics.jsonl (every column: docs/), samples.txt and the "
          f"final table.\nThe answer: python course/bugs.py {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
