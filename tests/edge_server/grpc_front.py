"""The gRPC side: protobuf messages to the client's models, and answers back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from qdrant_client import grpc as pb
from qdrant_client import models as m
from qdrant_client.conversions.conversion import (
    GrpcToRest,
    RestToGrpc,
    grpc_field_type_to_payload_schema,
)

from edge_server import grpc_answers as a
from edge_server.engine import Refused
from edge_server.gate import Gate

__all__ = ["GrpcFront"]

_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),  # else a second server on the same port would share its calls
]


class GrpcFront:
    """A listening gRPC server. `port` 0 means any; the attribute says which."""

    def __init__(self, gate: Gate, port: int) -> None:
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="edge-server-grpc")
        self._server = grpc.server(self._pool, options=_OPTIONS)
        for service, methods in _SERVICES.items():
            handlers = {method: _handler(gate, *about) for method, about in methods.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        self._server.stop(0.05).wait()  # cut without grace, idle clients in this process would log it
        self._pool.shutdown(wait=False)


def _handler(gate: Gate, name: str, request_type: Any, do: Callable[[Gate, Any], Any]) -> grpc.RpcMethodHandler:
    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return gate.run(name, dict(context.invocation_metadata()), lambda: do(gate, request))
        except Refused as exc:
            if exc.retry_after is not None:
                context.set_trailing_metadata((("retry-after", str(exc.retry_after)),))
            other = grpc.StatusCode.INTERNAL if exc.status >= 500 else grpc.StatusCode.INVALID_ARGUMENT
            context.abort(_CODES.get(exc.status, other), str(exc))

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request_type.FromString, response_serializer=_serialized
    )


def _serialized(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


# --- points -----------------------------------------------------------------------------------------------------------


def _query(gate: Gate, request: pb.QueryPoints) -> bytes:
    given = GrpcToRest.convert_query_points(request)
    return b"".join(map(a.scored, gate.collections.query(request.collection_name, [given], a.encode)[0]))


def _query_batch(gate: Gate, request: pb.QueryBatchPoints) -> bytes:
    given = [GrpcToRest.convert_query_points(one) for one in request.query_points]
    answers = gate.collections.query(request.collection_name, given, a.encode)
    return b"".join(a.field(a.FIRST, b"".join(map(a.scored, answer))) for answer in answers)


def _reading(request: pb.GetPoints | pb.ScrollPoints) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if request.HasField("with_payload"):
        given["with_payload"] = GrpcToRest.convert_with_payload_interface(request.with_payload)
    if request.HasField("with_vectors"):
        given["with_vector"] = GrpcToRest.convert_with_vectors_selector(request.with_vectors)
    return given


def _get(gate: Gate, request: pb.GetPoints) -> bytes:
    given = m.PointRequest(ids=[GrpcToRest.convert_point_id(id_) for id_ in request.ids], **_reading(request))
    found = gate.collections.retrieve(request.collection_name, given, a.encode)
    return b"".join(a.record(a.FIRST, point) for point in found)


def _where(request: Any) -> m.Filter | None:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


def _scroll(gate: Gate, request: pb.ScrollPoints) -> bytes:
    given = m.ScrollRequest(
        filter=_where(request),
        offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
        limit=request.limit if request.HasField("limit") else None,
        order_by=GrpcToRest.convert_order_by(request.order_by) if request.HasField("order_by") else None,
        **_reading(request),
    )
    found, rest = gate.collections.scroll(request.collection_name, given, a.encode)
    offset = b"" if rest is None else a.field(a.FIRST, a.point_id(rest).SerializeToString())
    return offset + b"".join(a.record(a.SECOND, point) for point in found)


def _count(gate: Gate, request: pb.CountPoints) -> pb.CountResponse:
    count = gate.collections.count(request.collection_name, m.CountRequest(filter=_where(request)))
    return pb.CountResponse(result=pb.CountResult(count=count))


def _done(result: m.UpdateResult) -> pb.PointsOperationResponse:
    return pb.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))


def _upsert(gate: Gate, request: pb.UpsertPoints) -> pb.PointsOperationResponse:
    given = m.PointsList(
        points=[GrpcToRest.convert_point_struct(point) for point in request.points],
        update_filter=(GrpcToRest.convert_filter(request.update_filter) if request.HasField("update_filter") else None),
        update_mode=GrpcToRest.convert_update_mode(request.update_mode) if request.HasField("update_mode") else None,
    )
    return _done(gate.collections.upsert(request.collection_name, given))


def _delete(gate: Gate, request: pb.DeletePoints) -> pb.PointsOperationResponse:
    selector = GrpcToRest.convert_points_selector(request.points)
    return _done(gate.collections.delete(request.collection_name, selector))


def _selected(request: Any) -> dict[str, Any]:
    selector = GrpcToRest.convert_points_selector(request.points_selector)
    return {"points": selector.points} if isinstance(selector, m.PointIdsList) else {"filter": selector.filter}


def _set_payload(gate: Gate, request: pb.SetPayloadPoints, *, overwrite: bool = False) -> pb.PointsOperationResponse:
    given = m.SetPayload(
        payload=GrpcToRest.convert_payload(request.payload),
        key=request.key if request.HasField("key") else None,
        **_selected(request),
    )
    return _done(gate.collections.set_payload(request.collection_name, given, overwrite=overwrite))


def _overwrite_payload(gate: Gate, request: pb.SetPayloadPoints) -> pb.PointsOperationResponse:
    return _set_payload(gate, request, overwrite=True)


def _delete_payload(gate: Gate, request: pb.DeletePayloadPoints) -> pb.PointsOperationResponse:
    given = m.DeletePayload(keys=list(request.keys), **_selected(request))
    return _done(gate.collections.delete_payload(request.collection_name, given))


def _update_batch(gate: Gate, request: pb.UpdateBatchPoints) -> pb.UpdateBatchResponse:
    given = [GrpcToRest.convert_points_update_operation(operation) for operation in request.operations]
    results = gate.collections.batch(request.collection_name, given)
    return pb.UpdateBatchResponse(result=[RestToGrpc.convert_update_result(result) for result in results])


def _create_index(gate: Gate, request: pb.CreateFieldIndexCollection) -> pb.PointsOperationResponse:
    schema = None
    if request.HasField("field_index_params"):
        schema = GrpcToRest.convert_payload_schema_params(request.field_index_params)
    elif request.HasField("field_type"):
        schema = GrpcToRest.convert_payload_schema_type(grpc_field_type_to_payload_schema(request.field_type))
    return _done(gate.collections.index(request.collection_name, request.field_name, schema))


def _delete_index(gate: Gate, request: pb.DeleteFieldIndexCollection) -> pb.PointsOperationResponse:
    return _done(gate.collections.unindex(request.collection_name, request.field_name))


# --- collections ------------------------------------------------------------------------------------------------------


def _optional(request: Any, **converters: Callable[[Any], Any]) -> dict[str, Any]:
    """Those fields that are set, converted."""
    return {name: make(getattr(request, name)) for name, make in converters.items() if request.HasField(name)}


def _create(gate: Gate, request: pb.CreateCollection) -> pb.CollectionOperationResponse:
    given = _optional(
        request,
        vectors_config=GrpcToRest.convert_vectors_config,
        sparse_vectors_config=GrpcToRest.convert_sparse_vector_config,
        hnsw_config=GrpcToRest.convert_hnsw_config_diff,
        wal_config=GrpcToRest.convert_wal_config_diff,
        optimizers_config=GrpcToRest.convert_optimizers_config_diff,
        quantization_config=GrpcToRest.convert_quantization_config,
        shard_number=int,
        replication_factor=int,
        write_consistency_factor=int,
        on_disk_payload=bool,
    )
    made = m.CreateCollection(
        vectors=given.pop("vectors_config", None),
        sparse_vectors=given.pop("sparse_vectors_config", None),
        metadata=GrpcToRest.convert_payload(request.metadata),
        **given,
    )
    return pb.CollectionOperationResponse(result=gate.collections.create(request.collection_name, made))


def _update(gate: Gate, request: pb.UpdateCollection) -> pb.CollectionOperationResponse:
    given = GrpcToRest.convert_update_collection(request)
    return pb.CollectionOperationResponse(result=gate.collections.update(request.collection_name, given))


def _drop(gate: Gate, request: pb.DeleteCollection) -> pb.CollectionOperationResponse:
    return pb.CollectionOperationResponse(result=gate.collections.drop(request.collection_name))


def _info(gate: Gate, request: pb.GetCollectionInfoRequest) -> pb.GetCollectionInfoResponse:
    info = gate.collections.info(request.collection_name)
    return pb.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))


def _cluster_info(gate: Gate, request: pb.CollectionClusterInfoRequest) -> pb.CollectionClusterInfoResponse:
    gate.collections.info(request.collection_name)
    return pb.CollectionClusterInfoResponse(peer_id=gate.peer_id, shard_count=1)


def _exists(gate: Gate, request: pb.CollectionExistsRequest) -> pb.CollectionExistsResponse:
    exists = gate.collections.exists(request.collection_name)
    return pb.CollectionExistsResponse(result=pb.CollectionExists(exists=exists))


def _list(gate: Gate, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
    names = gate.collections.names()
    return pb.ListCollectionsResponse(collections=[pb.CollectionDescription(name=name) for name in names])


def _aliases_answer(aliases: Iterable[m.AliasDescription]) -> pb.ListAliasesResponse:
    return pb.ListAliasesResponse(aliases=[RestToGrpc.convert_alias_description(alias) for alias in aliases])


def _aliases(gate: Gate, request: pb.ListAliasesRequest) -> pb.ListAliasesResponse:
    return _aliases_answer(gate.collections.aliases())


def _collection_aliases(gate: Gate, request: pb.ListCollectionAliasesRequest) -> pb.ListAliasesResponse:
    return _aliases_answer(gate.collections.aliases(request.collection_name))


def _change_aliases(gate: Gate, request: pb.ChangeAliases) -> pb.CollectionOperationResponse:
    operations = [GrpcToRest.convert_alias_operations(action) for action in request.actions]
    return pb.CollectionOperationResponse(result=gate.collections.change_aliases(operations))


def _health(gate: Gate, request: pb.HealthCheckRequest) -> pb.HealthCheckReply:
    return pb.HealthCheckReply(title="qdrant - vector search engine", version=gate.version)


_SERVICES: dict[str, dict[str, tuple[str, Any, Callable[[Gate, Any], Any]]]] = {
    "qdrant.Qdrant": {"HealthCheck": ("health", pb.HealthCheckRequest, _health)},
    "qdrant.Collections": {
        "Get": ("get_collection", pb.GetCollectionInfoRequest, _info),
        "List": ("list_collections", pb.ListCollectionsRequest, _list),
        "Create": ("create_collection", pb.CreateCollection, _create),
        "Update": ("update_collection", pb.UpdateCollection, _update),
        "Delete": ("delete_collection", pb.DeleteCollection, _drop),
        "UpdateAliases": ("change_aliases", pb.ChangeAliases, _change_aliases),
        "ListCollectionAliases": ("collection_aliases", pb.ListCollectionAliasesRequest, _collection_aliases),
        "ListAliases": ("aliases", pb.ListAliasesRequest, _aliases),
        "CollectionClusterInfo": ("cluster_info", pb.CollectionClusterInfoRequest, _cluster_info),
        "CollectionExists": ("collection_exists", pb.CollectionExistsRequest, _exists),
    },
    "qdrant.Points": {
        "Upsert": ("upsert", pb.UpsertPoints, _upsert),
        "Delete": ("delete", pb.DeletePoints, _delete),
        "Get": ("retrieve", pb.GetPoints, _get),
        "SetPayload": ("set_payload", pb.SetPayloadPoints, _set_payload),
        "OverwritePayload": ("overwrite_payload", pb.SetPayloadPoints, _overwrite_payload),
        "DeletePayload": ("delete_payload", pb.DeletePayloadPoints, _delete_payload),
        "CreateFieldIndex": ("create_index", pb.CreateFieldIndexCollection, _create_index),
        "DeleteFieldIndex": ("delete_index", pb.DeleteFieldIndexCollection, _delete_index),
        "Scroll": ("scroll", pb.ScrollPoints, _scroll),
        "Count": ("count", pb.CountPoints, _count),
        "UpdateBatch": ("update_batch", pb.UpdateBatchPoints, _update_batch),
        "Query": ("query", pb.QueryPoints, _query),
        "QueryBatch": ("query_batch", pb.QueryBatchPoints, _query_batch),
    },
}
