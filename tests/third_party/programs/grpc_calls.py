"""Calls over gRPC by reflection alone, as grpcurl makes them: `grpc_calls.py PORT`."""

import sys

import grpc
from common import tell
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


def main(port: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = sorted(database.get_services())
        pool = DescriptorPool(database)
        health = pool.FindServiceByName("grpc.health.v1.Health")
        check = health.FindMethodByName("Check")
        call = channel.unary_unary(
            f"/{health.full_name}/{check.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(check.output_type).FromString,
        )
        answer = call(GetMessageClass(check.input_type)())
        ours = [name for name in names if not name.startswith("grpc.")]
        methods = [one.name for name in ours for one in pool.FindServiceByName(name).methods]
        tell({"services": ours, "methods": methods, "status": answer.status})


main(*sys.argv[1:])
