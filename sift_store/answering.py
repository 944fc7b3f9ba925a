"""From what was chosen to the answer: hits, what was left out and why, and why there are fewer than asked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from sift_store.adapter import Statistics
from sift_store.choosing import Chosen
from sift_store.context import CandidatePool
from sift_store.plan import Plan, Request
from sift_store.records import Payload, Record
from sift_store.results import MARGIN_RANK, Hit, Hits, Suppressed

__all__ = ["make_hits", "shown_rows"]


def shown_rows(pool: CandidatePool, choice: Chosen) -> list[int]:
    """Rows whose text the answer shows: the chosen, their copies, and the nearest neighbours left out."""
    chosen = list(dict.fromkeys(choice.rows))
    copies = [row for pick in chosen for row in pool.copies.get(pick, ())]
    copies += [row for row, pick in pool.overlaps.items() if pick in chosen]
    left_out = _left_out(pool, choice)
    return list(dict.fromkeys([*chosen, *copies, *left_out]))


def _left_out(pool: CandidatePool, choice: Chosen) -> list[int]:
    """Nearest neighbours, as many as were chosen, that are neither chosen nor copies of a chosen one."""
    if pool.vectors is None or choice.gains is None or not choice.rows:
        return []
    chosen = set(choice.rows)
    covered = chosen | {row for pick in chosen for row in pool.copies.get(pick, ())}
    covered |= {row for row, pick in pool.overlaps.items() if pick in chosen}
    return [row for row in range(min(len(choice.rows), len(pool.keys))) if row not in covered]


def make_hits(
    pool: CandidatePool,
    choice: Chosen,
    request: Request,
    plan: Plan,
    statistics: Statistics,
    timings: dict[str, float],
    shared: bool = True,
) -> Hits:
    """The answer, once the records of `shown_rows` have been fetched; `shared`: others hold the same records."""
    gains: Sequence[float | None] = choice.gains or [None] * len(choice.rows)
    payload = _copied_payload if shared or len(set(choice.rows)) < len(choice.rows) else _payload
    items = [
        Hit(record.id, record.text, payload(record), float(pool.scores[row]), gain, place + 1, row + 1)
        for place, (row, gain) in enumerate(zip(choice.rows, gains, strict=True))
        if (record := pool.records[row]) is not None
    ]
    if request.order == "score":
        items.sort(key=lambda hit: -hit.score)
    return Hits(
        items=tuple(items),
        variance=tuple(choice.variance),
        plan=replace(plan, reasons=(*plan.reasons, f"but: {pool.note}")) if pool.note else plan,
        timings=dict(timings),
        suppressed=tuple(_suppressed(pool, choice)),
        shortfall=_shortfall(pool, choice, request, plan, statistics),
        metric="fused" if pool.fused else statistics.metric,
        found=len(pool.keys),
        moved=pool.moved,
        margin=_margin(pool),
    )


def _payload(record: Record) -> Payload:
    return record.payload


def _copied_payload(record: Record) -> Payload:
    """The hit's own, which changes nothing else when it is changed."""
    return copy.deepcopy(dict(record.payload))


def _margin(pool: CandidatePool) -> float | None:
    if not pool.keys:
        return None
    return float(pool.scores[0] - pool.scores[min(len(pool.keys), MARGIN_RANK) - 1])


def _suppressed(pool: CandidatePool, choice: Chosen) -> list[Suppressed]:
    if pool.vectors is None or choice.gains is None:
        return []
    chosen = set(choice.rows)
    left_out: list[tuple[int, int, str]] = [
        (row, pick, "copy") for pick in dict.fromkeys(choice.rows) for row in pool.copies.get(pick, ())
    ]
    left_out += [(row, pick, "overlap") for row, pick in pool.overlaps.items() if pick in chosen]
    if redundant := _left_out(pool, choice):
        nearest = (pool.vectors[redundant] @ pool.vectors[choice.rows].T).argmax(axis=1)
        for row, place in zip(redundant, nearest, strict=True):
            leader = choice.stand_ins.get(row)
            left_out.append((row, leader, "near-copy") if leader in chosen else (row, choice.rows[place], "redundant"))
    return [
        Suppressed(
            id=left.id,
            text=left.text,
            score=float(pool.scores[row]),
            rank=row + 1,
            by=stands.id,
            similarity=float(pool.vectors[row] @ pool.vectors[pick]),
            reason=reason,  # type: ignore[arg-type]  # one of the four
        )
        for row, pick, reason in sorted(left_out)
        if (left := pool.records[row]) is not None and (stands := pool.records[pick]) is not None
    ]


def _shortfall(pool: CandidatePool, choice: Chosen, request: Request, plan: Plan, statistics: Statistics) -> str:
    if not statistics.count:
        return "the collection is empty"
    gone = sum(pool.records[row] is None for row in set(choice.rows))
    if gone:
        return f"{gone} of the chosen were deleted while the search ran"
    if choice.stopped == "variance" and len(choice.rows) != plan.k:
        return f"{len(choice.rows)} leave no more than the target variance of {request.target_variance}"
    if len(choice.rows) >= (plan.k or 1):
        return ""
    if choice.stopped == "budget":
        return f"the budget of {request.max_tokens} tokens pays for {len(choice.rows)}"
    found = len(pool.keys)
    if plan.filter:
        why = f"{found} passages match the filter"
    else:
        why = f"{found} of {statistics.count:,} passages came back as candidates"
    copies = sum(map(len, pool.copies.values()))
    if copies and request.method == "sift":
        why += f", {copies} of them copies of another's text"
    if request.min_score is not None:
        why += f", {int((pool.scores >= request.min_score).sum())} score at least {request.min_score}"
    if request.objective == "query" and request.method == "sift":
        why += ", those that point away from the query are left out"
    return why
