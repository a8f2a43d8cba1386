"""Which call needs which permission, and whether a client has it: asked for every request, before any of it is read.

Without TLS there are no identities and no gate: a node listens on loopback then, or was told --insecure. A method that
is not in the table is denied to every client, so that a new one is closed until it has been decided who may call it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog
from attrs import Factory, define, field, frozen
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from proglog_trio.rpc.server.denial_log import DenialLog
from proglog_trio.rpc.server.identity import Identity
from proglog_trio.security.permissions import OBJECT, Action, Policy
from proglog_trio.security.reloading import FromFiles

_logger = structlog.get_logger(__name__)


@frozen
class Requirement:
    """What a client needs for a call.

    Attributes:
        actions: one of these must be permitted; none: an identity is enough.
        is_open: nothing is needed, not even a certificate.
    """

    actions: tuple[Action, ...] = ()
    is_open: bool = False


OPEN = Requirement(is_open=True)
AUTHENTICATED = Requirement()
READS_OR_WRITES = Requirement((Action.PRODUCE, Action.CONSUME))
HAS_ANY_RIGHT = Requirement(tuple(Action))

METHODS: Mapping[str, Requirement] = {
    "/log.v1.Log/Produce": Requirement((Action.PRODUCE,)),
    "/log.v1.Log/ProduceStream": Requirement((Action.PRODUCE,)),
    "/log.v1.Log/ProduceBatches": Requirement((Action.PRODUCE,)),
    "/log.v1.Log/Consume": Requirement((Action.CONSUME,)),
    "/log.v1.Log/ConsumeStream": Requirement((Action.CONSUME,)),
    "/log.v1.Log/ConsumeBatches": Requirement((Action.CONSUME,)),
    "/log.v1.Log/GetServers": READS_OR_WRITES,
    "/log.v1.Log/WatchServers": READS_OR_WRITES,
    # To see who is there and how far each is changes nothing; a client finds other nodes that way.
    "/log.v1.Cluster/GetMembers": HAS_ANY_RIGHT,
    "/log.v1.Cluster/GetStatus": HAS_ANY_RIGHT,
    "/log.v1.Cluster/GetInfo": HAS_ANY_RIGHT,
    "/log.v1.Cluster/EstimateRoundTrip": HAS_ANY_RIGHT,
}
"""By full path; what is not here goes by its service."""

SERVICES: Mapping[str, Requirement] = {
    "log.v1.Cluster": Requirement((Action.ADMIN,)),
    "log.v1.Replication": Requirement((Action.REPLICATE,)),
    "grpc.health.v1.Health": OPEN,
    "grpc.reflection.v1.ServerReflection": AUTHENTICATED,
    "grpc.reflection.v1alpha.ServerReflection": AUTHENTICATED,
}


def requirement_of(path: str) -> Requirement | None:
    """Return what a method needs; None: no client may call it."""
    found = METHODS.get(path)
    if found is not None:
        return found
    prefix, _, method = path.removeprefix("/").partition("/")
    return SERVICES.get(prefix) if method else None


@define
class GateCounters:
    """What a gate has turned away since the node began.

    Attributes:
        unauthenticated: calls of clients without a certificate, or with one that has expired since.
        denied: calls of clients that may not do that, by action.
        connections_withdrawn: connections that were closed because their clients' rights had been withdrawn.
    """

    unauthenticated: int = 0
    denied: dict[str, int] = field(factory=dict)
    connections_withdrawn: int = 0


@define(eq=False)
class Gate:
    """Asked for each request, if clients can be told apart.

    Attributes:
        policy: who may do what.
        counters: see GateCounters.
    """

    policy: FromFiles[Policy] | Policy
    counters: GateCounters = field(factory=GateCounters)
    _clock: Callable[[], float] = time.monotonic
    _denials: DenialLog = Factory(lambda self: DenialLog(self._clock), takes_self=True)
    # The policy that the denials in _denials were judged by.
    _judged_by: object = None

    def refusal(self, path: str, identity: Identity, peer: str) -> GRPCError | None:
        """Return what a request is turned away with; None: it may pass.

        Args:
            path: of the method.
            identity: of the client.
            peer: the client's address, for the log.
        """
        requirement = requirement_of(path)
        if requirement is not None and requirement.is_open:
            return None
        if identity.subject is None or identity.is_expired():
            self.counters.unauthenticated += 1
            reason = identity.problem if identity.subject is None else "the client's certificate has expired"
            self._log("a call without a valid identity was turned away", method=path, peer=peer, reason=reason)
            return GRPCError(Status.UNAUTHENTICATED, reason)
        if requirement is None:
            return self._denied(identity.subject, f"call {path}", "unknown method", path, peer)
        if requirement.actions and not self.permits(path, identity.subject):
            needed = " or ".join(action.value for action in requirement.actions)
            return self._denied(identity.subject, f"{needed} to {OBJECT}", needed, path, peer)
        if requirement.actions == (Action.ADMIN,):
            _logger.info("administration", subject=identity.subject, method=path, peer=peer)
        return None

    def permits(self, path: str, subject: str) -> bool:
        """Tell whether the policy lets a subject call a method."""
        requirement = requirement_of(path)
        if requirement is None:
            return False
        policy = self._policy()
        return not requirement.actions or any(policy.allows(subject, action) for action in requirement.actions)

    def _policy(self) -> Policy:
        return self.policy.value if isinstance(self.policy, FromFiles) else self.policy

    def _denied(self, subject: str, what: str, action: str, path: str, peer: str) -> GRPCError:
        self.counters.denied[action] = self.counters.denied.get(action, 0) + 1
        self._log("a call was denied", subject=subject, action=action, method=path, peer=peer)
        return GRPCError(Status.PERMISSION_DENIED, f"{subject} not permitted to {what}")

    def _log(self, event: str, **what: str) -> None:
        policy = self._policy()
        if policy is not self._judged_by:
            # What another policy says is news, even if it says the same.
            self._judged_by = policy
            self._denials.begin_anew()
        self._denials.tell(event, **what)
