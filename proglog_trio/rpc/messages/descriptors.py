"""The descriptors of everything that a node serves, for reflection and for classes that are made of them."""

from __future__ import annotations

import functools
import importlib.resources

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2
from grpclib.reflection.v1alpha import reflection_pb2 as reflection_alpha_pb2


@functools.cache
def descriptor_pool() -> DescriptorPool:
    """Return the descriptors of all services that a node has.

    They are those that are shipped with the package, in a pool of their own, so that a program may also have classes of
    the same names from elsewhere.
    """
    pool = DescriptorPool()
    descriptors = importlib.resources.files("proglog_trio._proto").joinpath("descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    for module in (health_pb2, reflection_pb2, reflection_alpha_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def message_class(name: str) -> type[Message]:
    """Return the class that protobuf's runtime makes of a message of this package's contract.

    Made of the pool above: messages of two pools do not mix, and modules that protoc writes would go to the pool that
    all programs share.
    """
    return GetMessageClass(descriptor_pool().FindMessageTypeByName(f"log.v1.{name}"))
