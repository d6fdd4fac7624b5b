r"""Train a recipe from random weights and from given ones, by turns, with several seeds, and compare the scores.

    python tools/compare_starts.py segmentation/flatten_pvt_v2_b0_fpn_camvid --weights best.ckpt \
        --seeds 0 1 2 --output transfer/camvid --data.root camvid_ade --trainer.max_steps 300

Both starts take the same steps on the same batches, so they take the same time; what follows the options of this
script goes to `flatten-dense fit`. Every run stays in the output folder, the tables are `starts.csv` and `starts.md`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from pathlib import Path
from typing import Any

from experiments.fits import last_words, main_score, start_fit

RANDOM, GIVEN = "random weights", "given weights"


def run(recipe: str, name: str, seed: int, output: Path, options: list[str]) -> dict[str, Any]:
    """Fit once; return a row for the table.

    Raises:
        RuntimeError: the fit failed; its output is shown.
    """
    home = output / name.replace(" ", "_")
    log = output / f"{home.name}_{seed}.txt"
    started = time.perf_counter()
    where = ["-c", recipe, "--name", home.name, "--runs", str(output), "--seed_everything", str(seed)]
    if start_fit([*where, *options], log).wait():
        raise RuntimeError(f"the fit from {name} with seed {seed} failed:\n{last_words(log)}")
    seconds = time.perf_counter() - started
    newest = max(home.iterdir())
    score, value = main_score(json.loads((newest / "metrics.json").read_text()))
    return {"start": name, "seed": seed, "score": score, "value": value, "seconds": round(seconds), "run": str(newest)}


def table(rows: list[dict[str, Any]]) -> str:
    """One line per start: the best validation of each seed, their mean and range, and the median time, in Markdown."""
    seeds = sorted({row["seed"] for row in rows})
    score = rows[0]["score"]
    lines = [
        f"| start | {' | '.join(f'seed {seed}' for seed in seeds)} | mean {score} | range | seconds |",
        f"|---{'|---' * len(seeds)}|---|---|---|",
    ]
    for start in dict.fromkeys(row["start"] for row in rows):
        own = {row["seed"]: row for row in rows if row["start"] == start}
        values = [row["value"] for row in own.values()]
        cells = [f"{own[seed]['value']:.3f}" if seed in own else "-" for seed in seeds]
        seconds = statistics.median(row["seconds"] for row in own.values())
        lines.append(
            f"| {start} | {' | '.join(cells)} | {statistics.mean(values):.3f} | {min(values):.3f} to {max(values):.3f} "
            f"| {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run all fits and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="as `fit -c` takes it")
    parser.add_argument("--weights", required=True, help="as --model.weights takes it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    arguments, options = parser.parse_known_args()
    if arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"--output {arguments.output}: not an empty folder; name a new one, nothing is overwritten")
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for name, more in ((RANDOM, []), (GIVEN, ["--model.weights", arguments.weights])):
            rows.append(run(arguments.recipe, name, seed, arguments.output, [*options, *more]))
            score = f"{rows[-1]['score']} {rows[-1]['value']:.4f}"
            print(f"{name}, seed {seed}: {score} in {rows[-1]['seconds']} s", flush=True)
            with (arguments.output / "starts.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            (arguments.output / "starts.md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
