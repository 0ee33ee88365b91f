"""How fast we sample, what each trick is worth, what a tree costs: ratios, measured side by side.

    python bench.py                        # compared with Hugging Face generate, and with no cache
    python bench.py --size 10m --batch 1,16,64
    python bench.py tricks                 # what each trick of the decode step is worth
    python bench.py tree                   # fGRPO's tree of 84 samples against a flat group of 84
    python bench.py authors --senior DIR   # a tandem step in one pass, or with two models
    python bench.py update                 # a whole GRPO update beside TRL's (pip: .[bench])

Prints a table, and one JSON object as the last line. What is compared runs in turn, several times.
Reported are medians, and the spread (smallest to largest) of the ratios of neighbouring runs.
Weights are random and no token ends a reply. The comparison with Hugging Face needs `transformers`
and `safetensors`.

`update` is of size toy, toy4 or smollm2 (the shape of a small public model: --senior DIR).

Every sampler draws at temperature 1 and reports the log-prob of each token it drew. `limit` is a
step that only multiplies (the model's weights, by that many rows) and reads its cache (half full on
average), both measured here; `share` is limit / ours.
"""
import argparse
import json
import resource
import statistics
import sys

import torch

import run
from claims import authors, speed, tricks, update


def show(result):
    size, rows, prompt, new, samplers, limit, beside = result.values()
    title = f"\n{size}, {rows} rows, {prompt} + {new} tokens"
    print(f"{title}; ratios to {beside}" if beside else title)
    print(f"{'tokens/s':>36}{'ratio':>9}    {'spread':16}{'share of limit':>16}{'compile s':>12}")
    for name, x in samplers.items():
        print(f"{name:24}{x['tokens_s']:12,.0f}{x['ratio']:9.2f}{'':4}{speed.spread(x['spread']):16}"
              f"{x['share']:16.2f}{x['compile_s']:12.1f}")
    gemm, cache = 1e6 * limit["gemm_s"], 1e6 * limit["cache_s"]
    print(f"limit: {gemm:.0f} us of multiplications and {cache:.0f} us of cache "
          f"({limit['gb_s']:.0f} GB/s) a step", flush=True)


def show_tricks(size, found):
    print(f"{size}, 8 prompts x 8 samples; time, against our eager sampler as it is")
    for name, ratios in found.items():
        print(f"{name:34}{statistics.median(ratios):8.2f}    {speed.spread(ratios)}")
    print(json.dumps({"size": size, **speed.machine(), "ratios": found}))


def show_profile(size, rows, ms, idle, kernels):
    print(f"\n{size}, {rows} rows: {ms:.1f} ms, the device idle {idle:.1%}")
    for x in kernels[:5]:
        print(f"{x['ms']:10.2f} ms {x['count']:7} x  {x['name']}")


def show_tree(times, facts):
    print("%d examples, %d samples each: %d sampled tokens in a tree, %d flat" % (*facts.values(),))
    result = {}
    for part in ("sampling", "update"):
        of_tree, of_flat = times[f"tree, {part}"], times[f"flat, {part}"]
        ratios = [a / b for a, b in zip(of_tree, of_flat)]
        a, b, ratio = map(statistics.median, (of_tree, of_flat, ratios))
        print(f"{part:10} tree {a:.2f} s, flat {b:.2f} s, ratio {ratio:.2f} ({speed.spread(ratios)})")
        result[part] = {"tree_s": a, "flat_s": b, "ratio": ratio, "ratios": ratios}
    print(json.dumps({**facts, **speed.machine(), **result}))


def show_updates(sizes, repeats, senior, quiet):
    """A table a size, then the JSON. senior: the folder that smollm2's weights come from."""
    versions = {**speed.machine(), **update.versions()}
    if not quiet:
        print(", ".join(f"{name} {number}" for name, number in versions.items()))
    found = []
    for size in sizes:
        found.append(update.measure(size, repeats, senior if size == "smollm2" else ""))
        if not quiet:
            update.show(found[-1])
    print(json.dumps({**versions, "runs": found}))


def main(argv=None):
    device = "cuda" if (gpu := torch.cuda.is_available()) else "cpu"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add, (size, batch) = parser.add_argument, ("10m,124m", "1,64,256") if gpu else ("toy", "64")
    modes = ["sampling", "tricks", "tree", "authors", "update"]
    add("what", nargs="?", default="sampling", choices=modes)
    add("--size", help=f"of {', '.join(speed.SIZES)}, separated by commas [{size}; update: toy]")
    add("--batch", default=batch, help=f"rows, separated by commas [{batch}]")
    add("--senior", default="", help="of authors and update: a folder of public weights")
    add("--compile", action="store_true", help="of authors: compile the decode step")
    add("--only", default="", help="these samplers, as in the table: ours compiled,no cache [all]")
    add("--repeats", type=int, default=5, help="of each measurement [5]")
    add("--threads", type=int, default=1, help="CPU threads [1]")
    add("--json", action="store_true", help="print nothing but the JSON object")
    add("--profile", action="store_true", help="on a GPU: a decode step's longest kernels instead")
    args = parser.parse_args(argv)
    repeats, only = max(1, args.repeats), [name.strip() for name in args.only.split(",") if name]
    known, usual = (update.SIZES, "toy") if args.what == "update" else (speed.SIZES, size)
    sizes, batches = (args.size or usual).split(","), args.batch.split(",")
    if set(sizes) - known.keys() or not all(b.isdigit() and int(b) for b in batches):
        parser.error(f"--size is of {', '.join(known)}; --batch numbers of rows, as 1,16,64")
    if args.profile and not gpu:
        parser.error("--profile needs a GPU")

    public = args.what == "authors" or (args.what == "update" and "smollm2" in sizes)
    if bool(args.senior) != public:
        parser.error("authors and update --size smollm2 need --senior FOLDER, nothing else does")

    torch.set_num_threads(max(1, args.threads))
    if args.what == "authors":
        rows = [int(b) for b in batches]
        found = authors.show(args.senior, rows, repeats, device, args.compile)
        return print(json.dumps({**speed.machine(), "threads": args.threads, "runs": found}))
    if args.what == "update":
        return show_updates(sizes, repeats, args.senior, args.json)
    if args.what == "tree":
        return show_tree(*tricks.tree(repeats))
    if args.what == "tricks":
        return [show_tricks(size, tricks.tricks(size, repeats, device)) for size in sizes]
    cells, found = [(size, int(rows)) for size in sizes for rows in batches], []
    for size, rows in cells:
        if args.profile:
            show_profile(**speed.profile(size, rows))
            continue
        found.append(speed.sampling(size, rows, repeats, device, only))
        if not args.json:
            show(found[-1])
    name = f"CPU, {torch.get_num_threads()} threads"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if gpu:
        name, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"device": name, **speed.machine(), "peak_mib": round(peak), "runs": found}))


if __name__ == "__main__":
    try:
        main()
    except (run.Stop, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
