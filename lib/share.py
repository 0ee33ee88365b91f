"""Replies behind one prompt share a row of an update, where prompts are longer than replies."""
import torch
from torch.nn.utils.rnn import pad_sequence

from model import by_prompt, sampled_length
from rollout import Rows


def mostly_prompt(mask):
    """Do the tokens before the first sampled one outnumber the others? mask: [R, T]"""
    prompt = mask.int().argmax(1)  # [R]
    return bool(2 * prompt.sum() > sampled_length(mask).sum())


def share_prompts(rows, *values, longest=512):
    """Rows of one prompt become a row: the prompt once, then what followed it in each, none of
    which sees the others (Rows.branch). It saves most of an update where prompts are long and
    replies short. values: [R, T] each, or None -> Rows of up to `longest` tokens where more than
    one reply is in them, and the values, moved alike."""
    prompt, length = rows.mask.int().argmax(1).tolist(), sampled_length(rows.mask).tolist()
    completions = [(tuple(rows.tokens[old, :n].tolist()), length[old] - n, old)
                   for old, n in enumerate(prompt)]  # prompt, tokens behind it, number of the row
    packed = [new for _, new in by_prompt(completions, longest)]  # new rows: lists of old

    # where each token comes from: its old row and column; and its branch, -1 for padding
    row, column, branch = [], [], []  # a list of new rows each
    for new in packed:
        n = prompt[new[0]]
        behind = [(old, t) for old in new for t in range(n, length[old])]
        row.append(torch.tensor([new[0]] * n + [old for old, _ in behind]))
        column.append(torch.tensor([*range(n), *(t for _, t in behind)]))
        branch.append(torch.tensor([0] * n + [new.index(old) + 1 for old, _ in behind]))
    row, column, branch = (  # [R', T'] each
        pad_sequence(x, batch_first=True, padding_value=padding).to(rows.tokens)
        for x, padding in ((row, 0), (column, 0), (branch, -1)))

    def moved(x):
        return None if x is None else torch.where(branch < 0, 0, x[row, column])
    first = torch.tensor([new[0] for new in packed], device=row.device)
    made = Rows(moved(rows.tokens), moved(rows.mask).bool(), moved(rows.behaviour_logp),
                moved(rows.turn_of_token), rows.episode[first], rows.group[first], branch=branch)
    return made, *map(moved, values)
