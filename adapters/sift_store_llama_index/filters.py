"""From LlamaIndex's metadata filters to ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from sift_store import FilterError
from sift_store.filters import parse_datetime

__all__ = ["where_of"]

# A node's document, under the name that LlamaIndex's Qdrant and Postgres stores filter by.
_DOCUMENT = "doc_id"
_PLAIN = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",  # a list of ours matches if any of its elements does
    FilterOperator.CONTAINS: "$eq",
}
_RANGES = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)


def where_of(filters: Any, doc_ids: Sequence[str] | None = None) -> Any:
    """A `where` for `SiftStore.search`.

    Args:
        filters: `MetadataFilters`, or what `search` takes, which is passed on; None for no filter.
        doc_ids: ids of the documents whose nodes are wanted.

    Raises:
        FilterError: an operator that compares parts of a text.
    """
    where = _group(filters) if isinstance(filters, MetadataFilters) else filters
    if doc_ids is None:
        return where
    within = {_DOCUMENT: {"$in": list(doc_ids)}}
    return within if where is None else {"$and": [where, within]}


def _group(filters: MetadataFilters) -> dict[str, Any]:
    parts = [_group(part) if isinstance(part, MetadataFilters) else _one(part) for part in filters.filters]
    match filters.condition:
        case FilterCondition.OR:
            return {"$or": parts} if parts else {}
        case FilterCondition.NOT:
            return {"$not": {"$or": parts}} if parts else {}
        case _:
            return {"$and": parts} if parts else {}


def _one(part: MetadataFilter) -> dict[str, Any]:
    if part.operator in _PLAIN:
        ranged = part.operator in _RANGES and isinstance(part.value, str)  # these filters hold no dates but as text
        value = (parse_datetime(part.value) or part.value) if ranged else part.value
        return {part.key: {_PLAIN[part.operator]: value}}
    if part.operator == FilterOperator.ALL:
        values = part.value if isinstance(part.value, list) else [part.value]
        return {"$and": [{part.key: {"$eq": value}} for value in values]} if values else {}
    if part.operator == FilterOperator.IS_EMPTY:
        return {part.key: {"$exists": False}}
    raise FilterError(
        f"filter on {part.key!r}: operator {part.operator.value!r} compares parts of a text; give another"
    )
