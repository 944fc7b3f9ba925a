"""Conditions that the caller wrote with SQLAlchemy, and which of them a scope lets in.

A scope holds whatever else a filter says. A condition that is put together from columns, values and operators stands in
parentheses and can only narrow it; text of SQL may close them. So what could carry text of its own is refused there.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.sql import elements, sqltypes, visitors
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import TypeEngine

from sift_store.errors import FilterError
from sift_store_pgvector.work import DIALECT

__all__ = ["checked_native"]

# What can be part of a condition in a scope.
_PARTS = (
    elements.BindParameter,
    elements.BinaryExpression,
    elements.BooleanClauseList,
    elements.Cast,
    elements.ColumnClause,
    elements.ExpressionClauseList,
    elements.ClauseList,
    elements.False_,
    elements.Grouping,
    elements.Null,
    elements.True_,
    elements.UnaryExpression,
)
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]*(\(\d+(, ?\d+)?\))?(\[\])*")
_SYMBOLS = re.compile(r"[-+*/<>=~!@#%^&|`?]+|[A-Za-z]+( [A-Za-z]+)*")


def checked_native(value: Any, guarded: bool) -> ColumnElement[bool]:
    """A condition in parentheses.

    Raises:
        FilterError: it is no condition of SQLAlchemy's, or `guarded` and not of such parts as can only narrow a scope.
    """
    if not isinstance(value, ColumnElement | elements.TextClause):
        raise FilterError(
            f"{type(value).__name__} given as a filter; a mapping or a SQLAlchemy condition, e.g. "
            "sqlalchemy.text(\"payload ->> 'lang' = 'en'\"), wanted"
        )
    if guarded:
        for part in visitors.iterate(value):
            _check_part(part)
    spread: Any = visitors.replacement_traverse(value, {}, _spread)
    return elements.Grouping(spread)


def _spread(element: Any, **_: Any) -> Any:
    """The values of `column.in_([…])` one by one: SQLAlchemy fills them in when it executes, which it does not here."""
    if not isinstance(element, elements.BindParameter) or not element.expanding:
        return None
    kind = element.type
    values = [bindparam(None, value, type_=kind, unique=True) for value in element.effective_value or ()]
    return elements.Grouping(elements.ClauseList(*values)) if values else None


def _check_part(part: Any) -> None:
    known = any(type(part) is kind or _is_plain_subclass(part, kind) for kind in _PARTS)
    literal = isinstance(part, elements.ColumnClause) and (part.is_literal or _is_unquoted(part.name))
    operators = [getattr(part, name, None) for name in ("operator", "modifier")]
    free = any(isinstance(op, custom_op) and not _SYMBOLS.fullmatch(op.opstring) for op in operators)
    if not known or literal or free or not _is_plain_type(getattr(part, "type", None)):
        raise FilterError(
            f"{type(part).__name__} given in a filter of a scoped store, where it could widen the scope; a mapping, or "
            "a condition of columns, values and operators wanted"
        )


def _is_plain_subclass(part: Any, kind: type) -> bool:
    """SQLAlchemy's own subclasses, such as a table's columns."""
    return isinstance(part, kind) and type(part).__module__.startswith("sqlalchemy.")


def _is_unquoted(name: Any) -> bool:
    """A name that stands in the statement as it is, whatever is in it."""
    return getattr(name, "quote", None) is False


def _is_plain_type(kind: TypeEngine[Any] | None) -> bool:
    """A type of SQLAlchemy's own, written as a name and lengths: some take names of others' choosing."""
    if kind is None or isinstance(kind, sqltypes.NullType | sqltypes.JSON.JSONElementType):
        return True  # which are never written
    if not type(kind).__module__.startswith("sqlalchemy."):
        return False
    return _TYPE.fullmatch(kind.compile(dialect=DIALECT)) is not None
