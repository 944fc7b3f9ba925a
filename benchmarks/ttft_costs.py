"""What an adaptation costs: search, copies, steps, restoring; and memory beside the model."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import report
from sift_store_transformers import TestTimeTuner
from ttft_data import TOKENS, read_domain

from sift_store import SiftStore

DOMAIN = "code_rust"
PICKS = 50  # of the search
STEPS = 8  # taken, to time one
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, autocast": {"autocast": True},
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
        *("kind", "search ms", "copies ms", "step ms", f"search, % of {PICKS} steps"),
        *("restore ms", "restore, % of a step", "peak beside the model, MB", "times the weights"),
    ]
    report("ttft_costs", f"{PICKS} picks, passages of {TOKENS} tokens, {model}, {DOMAIN}", columns, rows)


class Peak(threading.Thread):
    """Watches the resident memory of the process; loading a model has a peak of its own, which must not count."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.rss = 0
        self._process, self._done = process, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.005):
            self.rss = max(self.rss, self._process.memory_info().rss)

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()


def measured(model: str, kind: str) -> list[object]:
    """One row: medians over three adaptations; the search's over ten."""
    settings = {"loss_after": False, **KINDS[kind]}
    tuner = TestTimeTuner.load(model, max_tokens=TOKENS, **settings)
    domain = read_domain(DOMAIN, tuner.tokenizer)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, SiftStore.open(Path(folder) / "code.sift") as store:
        store.add(domain.passages, vectors=domain.vectors)
        query = domain.vectors[0]
        options: dict[str, Any] = {"k": PICKS, "objective": "query", "replace": True}
        searches = [sum(store.search(vector=query, **options).timings.values()) for _ in range(10)]
        hits = store.search(vector=query, **options)
    texts = [hit.text for hit in hits][:STEPS]
    before = process.memory_info().rss
    weights = sum(parameter.nbytes for parameter in tuner.model.parameters())
    found: dict[str, list[float]] = {"prepare": [], "step": [], "restore": []}
    peaks = []
    for _ in range(3):
        adaptation = tuner.adapt(texts)
        with Peak(process) as peak, adaptation:
            pass
        peaks.append(peak.rss - before)
        for name in ("prepare", "restore"):
            found[name].append(adaptation.seconds[name])
        found["step"].append(float(np.median([step.seconds for step in adaptation.steps])))
    search = float(np.median(searches))
    prepare, step, restore = (1e3 * float(np.median(found[name])) for name in ("prepare", "step", "restore"))
    return [
        *(kind, search, prepare, step, 100 * search / (PICKS * step)),
        *(restore, 100 * restore / step, max(peaks) / 1e6, max(peaks) / weights),
    ]


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
