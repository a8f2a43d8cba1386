"""The name of a cluster on the wire: nodes say of which they are, and clients whom they mean.

A name stands in metadata (see proto/log/v1/log.proto), so that it goes with every call, those of the book's clients
included, and is looked at before anything of a request is: a record that is meant for another cluster is not stored.
"""

from __future__ import annotations

import string
from urllib.parse import quote, unquote

from google.rpc import error_details_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError

CLUSTER_KEY = "proglog-cluster"
"""The metadata key."""
OTHER_CLUSTER = "OTHER_CLUSTER"
"""The reason in the details of a refusal."""
DOMAIN = "log.v1"
_NAME = "cluster_name"
_MAX_NAMED = 128
"""So much of what a client takes for a cluster's name is repeated."""
_AS_IT_IS = string.punctuation.replace("%", "") + " "


def encode_name(name: str) -> str:
    """Return a cluster's name as it stands in metadata: percent-encoded where it is no printable ASCII."""
    return quote(name, safe=_AS_IT_IS)


def decode_name(value: str) -> str:
    """Return the name that stands in metadata; what is no UTF-8 in it is replaced, and so is no cluster's name."""
    return unquote(value)


def other_cluster(asked: str, own: str) -> GRPCError:
    """Return what a call is answered with that is meant for another cluster than the node's own."""
    message = f"this node is of the cluster {own!r}, not of {asked[:_MAX_NAMED]!r}"
    details = [error_details_pb2.ErrorInfo(reason=OTHER_CLUSTER, domain=DOMAIN, metadata={_NAME: own})]
    return GRPCError(Status.FAILED_PRECONDITION, message, details)


def named_in(details: object) -> str | None:
    """Return the name of the cluster of a node that answered with other_cluster; None: it is no such answer.

    Args:
        details: what came with the answer's status, a sequence of google.rpc messages, or None.
    """
    for detail in details if isinstance(details, list | tuple) else ():
        if isinstance(detail, error_details_pb2.ErrorInfo) and detail.reason == OTHER_CLUSTER:
            return str(detail.metadata.get(_NAME, ""))
    return None
