"""Does a language model predict a text better after a gradient step on each of the passages that SIFT picks for it?

    SIFT_STORE_DATA=… python benchmarks/ttft.py run --worker 1/2 --plan choose --pieces 2
    SIFT_STORE_DATA=… python benchmarks/ttft.py run --worker 1/2 --minutes 70
    python benchmarks/ttft.py report --update docs/fine-tuning.md
    SIFT_STORE_DATA=… python benchmarks/ttft.py costs

`run` may be stopped and goes on; each of several workers takes its share. It visits all domains with one piece, then
with the next, so that whenever it stops all have as many. With OMP_NUM_THREADS=1 two workers do more on two cores
than one with two threads; MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=99999999999 keep glibc from returning the memory of
each tensor.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from sift_store_transformers import TestTimeTuner
from ttft_data import DOMAINS, TOKENS, read_domain
from ttft_runs import LAMBDAS, Book, Experiment

from sift_store.embedding import as_embedding

SIFT = "sift 0.1 rbf 1"  # the default of `search`
METHODS = ("nearest", SIFT, "sift 0.1", "repeated", "random", "uncertainty")
COPIED = ("copied nearest", f"copied {SIFT}")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    run_ = commands.add_parser("run")
    run_.add_argument("--worker", default="1/1")
    run_.add_argument("--minutes", type=float, default=60)
    run_.add_argument("--plan", choices=sorted(PLANS), default="report")
    run_.add_argument("--pieces", type=int, default=100)
    report_ = commands.add_parser("report")
    report_.add_argument("--update", type=Path, help="a document whose marked tables are replaced")
    costs = commands.add_parser("costs")
    for command in (run_, costs):
        command.add_argument("--model", default="smollm2")
    given = parser.parse_args()
    if given.command == "run":
        run(given)
    elif given.command == "report":
        from ttft_report import write_report

        write_report(SIFT, given.update)
    else:
        from ttft_costs import write_costs

        write_costs(given.model)


def run(given: argparse.Namespace) -> None:
    worker, _, workers = given.worker.partition("/")
    tuner = TestTimeTuner.load(given.model, max_tokens=TOKENS, autocast=True, loss_after=False)
    embedding = as_embedding("minilm")
    assert embedding is not None
    experiment = Experiment(tuner, embedding.query, Book(worker))
    domains = [read_domain(name, tuner.tokenizer) for name in DOMAINS]
    end = time.monotonic() + given.minutes * 60
    half, plan = PLANS[given.plan]
    for place in range(given.pieces):
        for number, domain in enumerate(domains):
            if (place * len(domains) + number) % int(workers) != int(worker) - 1:
                continue
            pieces = [piece for piece in domain.pieces if piece.half == half]
            if place < len(pieces):
                plan(experiment, domain, pieces[place], place)
                print(f"{(end - time.monotonic()) / 60:.0f} min left: piece {place + 1} of {domain.name}", flush=True)
            if time.monotonic() > end:
                return


def choose(experiment: Experiment, domain: Any, piece: Any, _: int) -> None:
    """For the default λ and kernel, on pieces that no table reports."""
    others = ["sift 0.1 rbf 1", "sift 1 rbf 1", "sift 0.1 rbf 2.5"]
    experiment.piece("whole", domain, piece, [*(f"sift {value:g}" for value in LAMBDAS), *others, "nearest"], 20)


def report(experiment: Experiment, domain: Any, piece: Any, place: int) -> None:
    """For the tables; what takes longest is done on the first pieces only."""
    experiment.piece("whole", domain, piece, METHODS[:3], 50)
    if place < 2:
        experiment.piece("whole", domain, piece, (*METHODS[3:], *COPIED), 20)
        experiment.piece("remainder", domain, piece, METHODS[:2], 20)
        experiment.in_context(domain, piece, METHODS[:2], (1, 5, 10))


PLANS = {"choose": ("choose", choose), "report": ("report", report)}


if __name__ == "__main__":
    main()
