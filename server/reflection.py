"""gRPC reflection, so that grpcurl and `buf curl` need no proto file.

grpcio-reflection speaks v1alpha only. v1 has the same messages under another service name, so the
same servicer answers both; v1 is not listed, because no descriptor of it is in the pool.
"""

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Lists `services` and reflection itself."""
    names = (*services, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
    answer = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": answer}
    for name in (reflection.SERVICE_NAME, V1):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
