"""Whether gRPC and REST at one address lead to the same server: a port may be another's, and gets everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

import grpc as grpc_errors
from qdrant_client import QdrantClient, grpc
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

__all__ = ["is_one_server"]

# Collections of each list that are tried until one tells who keeps it.
_TRIED = 3
_NOT_FOUND = 404
_REFUSALS = (QdrantException, ApiException, grpc_errors.RpcError)


def is_one_server(client: QdrantClient, collection: str | None) -> bool | None:
    """Compare who keeps a collection: each node of Qdrant has a random number of its own, which both wires tell.

    Args:
        client: one that speaks both. collection: the one that is wanted; others are tried if it does not tell.

    Returns:
        Whether the wires lead to nodes of one server or cluster; None if nothing shows it.
    """
    for name in islice(_names(client, collection), 2 * _TRIED + 1):
        over_rest, over_grpc = _told(_peers_by_rest, client, name), _told(_peers_by_grpc, client, name)
        if over_rest is None or over_grpc is None:
            continue
        if over_rest or over_grpc:
            return bool(over_rest & over_grpc)  # what one of them keeps the other may not even know
    return None


def _told(ask: Callable[[QdrantClient, str], set[int]], client: QdrantClient, name: str) -> set[int] | None:
    """The nodes that keep a collection, none where it is not there; None if that is not told."""
    try:
        return ask(client, name)
    except UnexpectedResponse as exc:
        return set() if exc.status_code == _NOT_FOUND else None
    except grpc_errors.RpcError as exc:
        return set() if exc.code() == grpc_errors.StatusCode.NOT_FOUND else None
    except _REFUSALS:
        return None


def _names(client: QdrantClient, collection: str | None) -> Iterator[str]:
    """The wanted collection, then those that either wire lists."""
    seen = {collection}
    if collection is not None:
        yield collection
    for names in (_names_by_rest, _names_by_grpc):
        try:
            fresh = [name for name in names(client) if name not in seen]
        except _REFUSALS:
            continue
        seen.update(fresh)
        yield from fresh[:_TRIED]


def _names_by_rest(client: QdrantClient) -> list[str]:
    answer: Any = client.http.client.request(type_=Any, method="GET", url="/collections")
    return [item["name"] for item in answer["result"]["collections"]]


def _names_by_grpc(client: QdrantClient) -> list[str]:
    answer = client.grpc_collections.List(grpc.ListCollectionsRequest(), timeout=client.init_options.get("timeout"))
    return [item.name for item in answer.collections]


def _peers_by_rest(client: QdrantClient, name: str) -> set[int]:
    place = f"/collections/{quote(name, safe='')}/cluster"
    answer: Any = client.http.client.request(type_=Any, method="GET", url=place)
    result = answer["result"]
    remote = [shard["peer_id"] for shard in result.get("remote_shards") or []]
    return {peer for peer in (result["peer_id"], *remote) if peer}


def _peers_by_grpc(client: QdrantClient, name: str) -> set[int]:
    request = grpc.CollectionClusterInfoRequest(collection_name=name)
    answer = client.grpc_collections.CollectionClusterInfo(request, timeout=client.init_options.get("timeout"))
    return {peer for peer in (answer.peer_id, *(shard.peer_id for shard in answer.remote_shards)) if peer}
