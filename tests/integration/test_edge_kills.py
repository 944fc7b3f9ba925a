"""The embedded store under kill -9 in the middle of anything: what was acknowledged is there, the rest is old or new.

`make crash` kills more often than the tests do.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sift_store import SiftStore
from sift_store.testing import WordEmbedder

KILLS = int(os.environ.get("SIFT_STORE_KILLS", "30"))
IDS = 300

State = dict[int, tuple[str, dict[str, Any]]]


def operation(number: int) -> tuple[str, list[int], dict[str, Any]]:
    """What is done as the so-manieth thing: its kind, the ids it concerns, and a payload."""
    rng = random.Random(number)
    kind = rng.choices(["add", "update", "delete", "reembed", "optimize"], [6, 3, 2, 1, 1])[0]
    start = rng.randrange(IDS)
    ids = [] if kind in ("reembed", "optimize") else list(range(start, min(start + rng.randrange(1, 60), IDS)))
    return kind, ids, {"number": number, "share": rng.random(), "of": f"2024-01-01T00:00:{number % 60:02}+0200"}


def apply(state: State, number: int) -> State:
    """What a store holds afterwards."""
    kind, ids, payload = operation(number)
    if kind == "add":
        return {**state, **{id_: (f"text {id_} of {number}", payload) for id_ in ids}}
    if kind == "update":
        return {**state, **{id_: (state[id_][0], {**state[id_][1], **payload}) for id_ in ids if id_ in state}}
    return {id_: record for id_, record in state.items() if kind != "delete" or id_ not in ids}


def work(path: str, start: int) -> None:
    """In a process of its own: do one thing after another, and say so."""
    store = SiftStore.open(path, embedder=WordEmbedder())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for number in range(start, start + 100_000):
        kind, ids, payload = operation(number)
        if kind == "add":
            store.add([f"text {id_} of {number}" for id_ in ids], ids=ids, payloads=[payload] * len(ids))
        elif kind == "update":
            present = [record.id for record in store.get(ids) if record is not None]
            store.update_payload(present, payload)
        elif kind == "delete":
            store.delete(ids)
        elif kind == "reembed" and store.count():
            store.reembed(WordEmbedder())
        elif kind == "optimize":
            store.optimize()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def kill_after(path: Path, start: int, acknowledged: int, delay: int) -> int:
    """Work in a child, killed a little after so many things are done; the number of the last that it said was done."""
    command = [sys.executable, __file__, str(path), str(start)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    for _ in range(acknowledged):
        child.stdout.readline()
    for _ in range(delay):  # a moment in the middle of the next thing, however fast the machine is
        os.sched_yield() if hasattr(os, "sched_yield") else None
    child.kill()
    said, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL
    lines = said.split("\n")[:-1]
    return int(lines[-1]) if lines else start + acknowledged - 1


def check(path: Path, before: State, after: State) -> State:
    """Each record is as before the last thing or as after it, whole; what the store holds."""
    with SiftStore.open(path, embedder=WordEmbedder()) as store:
        records = dict(zip(range(IDS), store.get(list(range(IDS)), vectors=True), strict=True))
        held: State = {}
        for id_, record in records.items():
            allowed = [before.get(id_), after.get(id_)]
            stored = None if record is None else (record.text, dict(record.payload))
            assert stored in allowed, id_
            if record is not None and stored is not None:
                assert record.vector is not None
                wanted = WordEmbedder().embed_documents([record.text])[0]
                assert float(record.vector @ wanted / np.linalg.norm(wanted)) > 1 - 1e-5
                held[id_] = stored
        assert store.count() == len(held)
        assert not [finding for finding in store.doctor() if finding.level == "error"]
        return held


def test_kill_at_any_moment_of_anything(tmp_path: Path) -> None:
    path, state, number, rng = tmp_path / "killed.sift", {}, 0, random.Random(0)
    for _ in range(KILLS):
        last = kill_after(path, number, rng.randrange(12), rng.randrange(2000))
        for done in range(number, last + 1):
            state = apply(state, done)
        state = check(path, state, apply(state, last + 1))
        number = last + 2  # the thing that was under way is not done again
    assert number > KILLS


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
