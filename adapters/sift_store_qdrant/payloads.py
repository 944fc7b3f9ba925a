"""Payload layouts: where the text, the metadata and the id are in points that others wrote, and how that is told."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sift_store.errors import LocationError
from sift_store.kernels import directed_rows
from sift_store.points import METADATA, point_record
from sift_store.records import Id, Record
from sift_store_qdrant.work import PointKey, Stored

__all__ = ["OWN", "PayloadLayout", "as_key", "find_layout"]

_NODE = "_node_content"


@dataclass(frozen=True, slots=True)
class PayloadLayout:
    """Where things are in a payload.

    Attributes:
        name: whose layout it is, for people.
        text: key of the text. metadata: key of the metadata, "" if all other keys are metadata.
        id: key of the id that the writer knows the passage by, "" if that is the point's own.
    """

    name: str
    text: str
    metadata: str
    id: str = ""

    def record(self, point: Stored) -> Record:
        """A point as a record. A text that is not there is empty."""
        vector = None if point.vector is None else _unit(point.vector)
        if self is OWN:
            return point_record(point.key, point.payload, vector)
        held = point.payload
        text = held.get(self.text)
        if text is None and self.name == "LlamaIndex":
            text = _node_text(held)
        if self.metadata:
            below = held.get(self.metadata)
            payload = dict(below) if isinstance(below, Mapping) else {}
        else:
            payload = {key: value for key, value in held.items() if key != self.text}
        return Record(self._id(point), text if isinstance(text, str) else "", payload, vector)

    def named(self, point: Stored) -> str | int | None:
        """The id that the payload holds, if it holds one."""
        held = point.payload.get(self.id) if self.id else None
        return held if isinstance(held, str | int) and not isinstance(held, bool) else None

    def _id(self, point: Stored) -> Id:
        named = self.named(point)
        if named is not None:
            return named
        return point.key if isinstance(point.key, int) else uuid.UUID(point.key)

    def has_text(self, payload: Mapping[str, Any]) -> bool:
        """Whether there is a text in a payload."""
        return bool(self.record(Stored(0, payload)).text)


OWN = PayloadLayout("sift-store", "text", METADATA, "id")
# The first whose keys are all there is it; a key that ends in a colon is one whose value is an object.
_KNOWN: tuple[tuple[tuple[str, ...], PayloadLayout], ...] = (
    ((_NODE,), PayloadLayout("LlamaIndex", "text", "")),
    (("page_content",), PayloadLayout("LangChain", "page_content", "metadata")),
    (("content", "meta:"), PayloadLayout("Haystack", "content", "meta", "id")),
    (("document", "metadata:"), PayloadLayout("mcp-server-qdrant", "document", "metadata")),
    (("document",), PayloadLayout("qdrant-client's add", "document", "")),
    (("text", "metadata:"), PayloadLayout("text and metadata", "text", "metadata")),
    (("text",), PayloadLayout("text", "text", "")),
)


def find_layout(payloads: Sequence[Mapping[str, Any]], options: Mapping[str, str]) -> PayloadLayout:
    """The layout of some payloads of a collection, as far as the options do not say it.

    Raises:
        LocationError: the text cannot be told.
    """
    said = {name: options[name] for name in ("text", "metadata", "id") if name in options}
    if "text" in said:
        below = said.get("metadata", "")
        return PayloadLayout("as said", said["text"], below, said.get("id", ""))
    for keys, layout in _KNOWN:
        if any(all(_has(payload, key) for key in keys) for payload in payloads):
            return replace(layout, **said)
    texts = [key for key, values in _by_key(payloads).items() if all(isinstance(value, str) for value in values)]
    if len(texts) == 1:
        return PayloadLayout("as found", texts[0], said.get("metadata", ""), said.get("id", ""))
    if not payloads:
        raise LocationError("the collection is empty, so where its texts are cannot be seen; say &text=KEY in the URL")
    keys_there = ", ".join(sorted(_by_key(payloads))) or "no keys at all"
    raise LocationError(f"which payload key holds the text? Say &text=KEY in the URL; there are: {keys_there}")


def _has(payload: Mapping[str, Any], key: str) -> bool:
    name = key.removesuffix(":")
    return isinstance(payload.get(name), Mapping) if key.endswith(":") else payload.get(name) is not None


def _by_key(payloads: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for payload in payloads:
        for key, value in payload.items():
            found.setdefault(key, []).append(value)
    return found


def _node_text(payload: Mapping[str, Any]) -> str | None:
    """LlamaIndex keeps a node as JSON text."""
    try:
        node = json.loads(payload[_NODE])
        text = node.get("text") or (node.get("text_resource") or {}).get("text")
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return text if isinstance(text, str) else None


def _unit(vector: Any) -> Any:
    """At unit length; all zeros if it has no direction."""
    return directed_rows(np.asarray(vector, dtype=np.float32)[None, :])[0][0]


def as_key(id_: Id) -> PointKey | None:
    """An id as a point's own, None if it cannot be one."""
    if isinstance(id_, int):
        return id_ if id_ >= 0 else None
    try:
        return str(id_ if isinstance(id_, uuid.UUID) else uuid.UUID(id_))
    except ValueError:
        return None
