"""pgvector's column types and distances, for SQLAlchemy. Our own: the pgvector package would be one more to keep."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import UserDefinedType

from sift_store_pgvector.codec import VectorType

__all__ = ["METRICS", "OPCLASSES", "OPERATORS", "Vector", "distance"]

# The operator of each metric and, per operator class, the metric. Scores are 1 - <=>, -<#> and -<->.
OPERATORS = {"cosine": "<=>", "dot": "<#>", "euclid": "<->"}
METRICS = {"cosine_ops": "cosine", "ip_ops": "dot", "l2_ops": "euclid"}
OPCLASSES = {metric: name for name, metric in METRICS.items()}


class Vector(UserDefinedType[Any]):
    """``vector(d)`` or ``halfvec(d)``; without a dimension, the bare type."""

    cache_ok = True

    def __init__(self, kind: VectorType = "vector", dimension: int | None = None) -> None:
        self.kind, self.dimension = kind, dimension

    def get_col_spec(self, **_: Any) -> str:  # noqa: D102  # SQLAlchemy's own
        return self.kind if self.dimension is None else f"{self.kind}({self.dimension})"


def distance(left: ColumnElement[Any], operator: str, right: ColumnElement[Any]) -> ColumnElement[float]:
    """``left <=> right`` or another distance. An index serves ``ORDER BY`` this and nothing around it."""
    return left.op(operator, return_type=Float())(right)
