"""What an adaptation costs: search, copies, steps, restoring; and memory beside the model."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import report
from sift_store_transformers import TestTimeTuner
from ttft_data import TOKENS, read_domain

from sift_store import SiftStore

DOMAIN = "code_rust"
STEPS = 50
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, autocast": {"autocast": True},
    "full, loss after each step": {"loss_after": True},
    "full, checkpointing": {"checkpointing": True},
    "lora": {"method": "lora"},
    "lora, autocast": {"method": "lora", "autocast": True},
}


def write_costs(model: str) -> None:
    """Each kind in a process of its own, so that each has its own peak of memory."""
    rows = []
    for kind in KINDS:
        command = [sys.executable, __file__, model, kind]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    columns = [
        *("kind", "search ms", "copies ms", "step ms", f"{STEPS} steps s", "search, % of tuning"),
        *("restore ms", "restore, % of a step", "peak beside the model, MB", "times the weights"),
    ]
    report("ttft_costs", f"{STEPS} picks of {TOKENS} tokens, {model}, {DOMAIN}", columns, rows)


def measured(model: str, kind: str) -> list[object]:
    """One row: medians over three adaptations; the search's over ten."""
    settings = {"loss_after": False, **KINDS[kind]}
    tuner = TestTimeTuner.load(model, max_tokens=TOKENS, **settings)
    domain = read_domain(DOMAIN, tuner.tokenizer)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, SiftStore.open(Path(folder) / "code.sift") as store:
        store.add(domain.passages, vectors=domain.vectors)
        query = domain.vectors[0]
        options: dict[str, Any] = {"k": STEPS, "objective": "query", "replace": True}
        searches = [sum(store.search(vector=query, **options).timings.values()) for _ in range(10)]
        hits = store.search(vector=query, **options)
    with tuner.adapt([hits[0].text]):
        pass  # the first one meets cold caches
    before = process.memory_info().rss
    weights = sum(parameter.nbytes for parameter in tuner.model.parameters())
    found: dict[str, list[float]] = {"prepare": [], "tune": [], "step": [], "restore": []}
    for _ in range(3):
        adaptation = tuner.adapt(hits)
        with adaptation:
            pass
        for name in ("prepare", "tune", "restore"):
            found[name].append(adaptation.seconds[name])
        found["step"].append(float(np.median([step.seconds for step in adaptation.steps])))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    search = float(np.median(searches))
    prepare, tune, step, restore = (float(np.median(found[name])) for name in ("prepare", "tune", "step", "restore"))
    return [
        *(kind, search, 1e3 * prepare, 1e3 * step, tune, search / 10 / tune),
        *(1e3 * restore, 100 * restore / step, peak / 1e6, peak / weights),
    ]


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
