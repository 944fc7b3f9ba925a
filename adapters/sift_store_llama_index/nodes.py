"""Between LlamaIndex's nodes and our records; the layout of payloads is that of LlamaIndex's own vector stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, ObjectType, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from sift_store import Hit, Hits, Record

__all__ = ["SCORES", "kept_elsewhere", "node_of", "payload_of", "put_in", "scored", "text_of"]

# The key in a node's metadata that holds what a search says of it, where that is asked for.
SCORES = "sift"
_NODE = "_node_content"


def text_of(node: BaseNode) -> str:
    """A node's text alone."""
    return node.get_content(metadata_mode=MetadataMode.NONE)


def payload_of(node: BaseNode) -> dict[str, Any]:
    """A node's metadata and the node itself as JSON, without its text and vector: what LlamaIndex's stores keep."""
    return node_to_metadata_dict(node, remove_text=True, flat_metadata=False)


def node_of(item: Hit | Record) -> BaseNode:
    """The node that a payload holds, or a new one for a passage that was not stored by LlamaIndex."""
    plain = TextNode(id_=str(item.id), text=item.text, metadata=dict(item.payload))
    if _NODE not in item.payload:
        return plain
    try:
        node = metadata_dict_to_node(dict(item.payload))
    except Exception:  # whatever JSON, pydantic and LlamaIndex raise at what is no node: one passage of many
        return plain
    if item.text and not text_of(node):
        node.set_content(item.text)
    return node


def kept_elsewhere(nodes: Sequence[BaseNode], stores_text: bool) -> list[str]:
    """Ids of nodes whose whole is in the document store: all, or those that are no plain text, such as index nodes."""
    return [
        node.node_id for node in nodes if not stores_text or node.as_related_node_info().node_type != ObjectType.TEXT
    ]


def put_in(nodes: Sequence[BaseNode], found: Sequence[BaseNode]) -> list[BaseNode]:
    """Nodes, with those that were found in the place of those of their ids."""
    by_id = {node.node_id: node for node in found}
    return [by_id.get(node.node_id, node) for node in nodes]


def scored(nodes: Sequence[BaseNode], hits: Hits, *, with_scores: bool) -> list[NodeWithScore]:
    """Nodes with the scores of their hits, and with `with_scores` all else in the metadata, unseen by models."""
    if not with_scores:
        return [NodeWithScore(node=node, score=hit.score) for node, hit in zip(nodes, hits, strict=True)]
    told = []
    for node, hit in zip(nodes, hits, strict=True):
        left = hits.variance[hit.pick - 1] if hits.variance else None
        said = {"score": hit.score, "gain": hit.gain, "variance": left, "pick": hit.pick, "rank": hit.rank}
        copy = node.model_copy(
            update={
                "metadata": {**node.metadata, SCORES: said},
                "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, SCORES],
                "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, SCORES],
            }
        )
        told.append(NodeWithScore(node=copy, score=hit.score))
    return told
