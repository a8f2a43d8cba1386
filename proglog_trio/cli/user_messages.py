"""``proglog-trio event``, ``query`` and ``events``: user events and queries of a cluster."""

import base64
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import App, Parameter

from proglog_trio.cli.contexts.addresses import DEFAULT_ADDRESSES, NodeAddress
from proglog_trio.cli.contexts.choice import ContextName
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.records import json_line
from proglog_trio.cli.node_commands import report, run_interruptible
from proglog_trio.cli.node_options import NODE, AskedNode, NodeOptions
from proglog_trio.cli.tls_options import Tls
from proglog_trio.node.option_types import TIME, between, flag

if TYPE_CHECKING:
    from proglog_trio._proto.log.v1 import QueryResponse, WatchEventsResponse

CONNECT_SECONDS = 10.0

event_app = App(name="event")
query_app = App(name="query")
events_app = App(name="events")

Payload = Annotated[str, Parameter(metavar="PAYLOAD", help="What goes with it.", allow_leading_hyphen=True)]


@event_app.default
def event(
    name: Annotated[str, Parameter(metavar="NAME", help="Of the event.")],
    payload: Payload = "",
    /,
    *,
    coalesce: Annotated[
        bool, flag("Of several events of this name that come together, the newest may stand for all.")
    ] = False,
    node: AskedNode = NODE,
) -> int:
    """Send a user event to all members of a cluster, serf agents included."""
    return run_interruptible(partial(_event, node, name, payload, coalesce=coalesce))


async def _event(node: NodeOptions, name: str, payload: str, *, coalesce: bool) -> int:
    from proglog_trio.rpc.calls.cluster import send_event

    await node.ask(send_event, name, _encoded(payload), coalesce=coalesce)
    return ExitCode.DONE


def _check_tags(_type: type, value: tuple[str, ...]) -> None:
    for text in value:
        tag, separator, _ = text.partition("=")
        if not separator or not tag:
            raise ValueError(f"{text!r} is no tag with an expression, such as role=^web.")
    if len(_by_tag(value)) < len(value):
        raise ValueError("A tag can have one expression.")


def _by_tag(tags: Iterable[str]) -> dict[str, str]:
    return {tag: expression for tag, _, expression in (text.partition("=") for text in tags)}


@attrs.frozen(kw_only=True)
class _Question:
    """What is asked, and how it is shown."""

    name: str
    payload: str
    nodes: tuple[str, ...]
    tags: Mapping[str, str]
    timeout: float
    relay_factor: int
    acknowledge: bool
    json: bool


@query_app.default
def query(
    name: Annotated[str, Parameter(metavar="NAME", help="Of the query.")],
    payload: Payload = "",
    /,
    *,
    nodes: Annotated[
        tuple[str, ...],
        Parameter(
            name="--node",
            metavar="NAME",
            negative="",
            show_default=False,
            n_tokens=1,
            help="Ask this member; without it, all. Repeatable.",
        ),
    ] = (),
    tags: Annotated[
        tuple[str, ...],
        Parameter(
            name="--tag",
            metavar="TAG=EXPRESSION",
            validator=_check_tags,
            n_tokens=1,
            negative="",
            show_default=False,
            help="Ask members whose tag matches a regular expression (RE2), anywhere in its value. Repeatable: all "
            "must match.",
        ),
    ] = (),
    timeout: Annotated[
        float,
        TIME,
        between(0, 86_400),
        Parameter(
            help="How long answers are waited for, unless all that were asked have answered before: seconds, or 1m. 0: "
            "as long as gossip needs to reach everybody, which is some seconds."
        ),
    ] = 0.0,
    relay_factor: Annotated[
        int,
        between(0, 255),
        Parameter(metavar="N", help="Through how many other members each answer is sent besides."),
    ] = 0,
    no_ack: Annotated[bool, flag("Have members not say that they have the query before they answer.")] = False,
    json: Annotated[
        bool,
        flag(
            "Write a JSON object a line, as it comes: member, and either acknowledged or the answer as payload "
            "(payload_base64 where it is no UTF-8)."
        ),
    ] = False,
    addr: NodeAddress = DEFAULT_ADDRESSES,
    context: ContextName = None,
    connect_timeout: Annotated[
        float,
        TIME,
        between(0.1, 300.0),
        Parameter(help="How long to go on trying when the node cannot be reached: seconds, or 1m."),
    ] = CONNECT_SECONDS,
    tls: Tls = None,
) -> int:
    """Ask the members of a cluster, serf agents included, and write their answers as they come.

    It ends when all that were asked have answered or are gone, or after the time-out.
    """
    question = _Question(
        name=name,
        payload=payload,
        nodes=nodes,
        tags=_by_tag(tags),
        timeout=timeout,
        relay_factor=relay_factor,
        acknowledge=not no_ack,
        json=json,
    )
    return run_interruptible(partial(_query, NodeOptions(addr=addr, timeout=connect_timeout, tls=tls), question))


async def _query(node: NodeOptions, question: _Question) -> int:
    from proglog_trio._proto.log.v1 import QueryRequest
    from proglog_trio.rpc.calls import cluster

    request = QueryRequest(
        name=question.name,
        payload=_encoded(question.payload),
        nodes=[*question.nodes],
        tags=dict(question.tags),
        timeout_seconds=question.timeout,
        relay_factor=question.relay_factor,
        no_acknowledgements=not question.acknowledge,
    )
    acknowledged, answered = 0, 0

    def told(response: "QueryResponse") -> None:
        nonlocal acknowledged, answered
        if response.is_acknowledgement:
            acknowledged += 1
        else:
            answered += 1
        _write(_answer_line(response) if question.json else _answer_text(response))

    await node.ask(cluster.query, request, told)
    if not question.json:
        total = f"{answered} answered"
        report(f"{acknowledged} acknowledged, {total}" if question.acknowledge else total)
    return ExitCode.DONE


def _answer_line(response: "QueryResponse") -> str:
    said = {"acknowledged": True} if response.is_acknowledgement else _payload(response.payload)
    return json_line({"member": response.member, **said}).decode().rstrip("\n")


def _answer_text(response: "QueryResponse") -> str:
    if response.is_acknowledgement:
        return f"{response.member} has the query"
    return f"{response.member}: {response.payload.decode('utf-8', 'replace')}"


@events_app.default
def events(
    *,
    coalesce: Annotated[
        bool,
        flag(
            "Wait a second or a few for what belongs together: members to whom the same happens are told of in one "
            "line, and of events that may be coalesced only the newest of each name."
        ),
    ] = False,
    json: Annotated[
        bool,
        flag("Write a JSON object a line: event, and members, or name, payload (or payload_base64) and lamport_time."),
    ] = False,
    node: AskedNode = NODE,
) -> int:
    """Write what happens from now on to members, user events, and queries that are for the node, until Ctrl-C."""
    return run_interruptible(partial(_events, node, coalesce=coalesce, json=json), after_signal=ExitCode.DONE)


async def _events(node: NodeOptions, *, coalesce: bool, json: bool) -> int:
    from proglog_trio.rpc.calls.cluster import watch_events

    def told(happened: "WatchEventsResponse") -> None:
        described = _described(happened)
        if described is not None:
            _write(json_line(described).decode().rstrip("\n") if json else _text(described))

    await node.ask(watch_events, told, coalesce=coalesce)
    raise CommandError("the node has stopped", ExitCode.UNREACHABLE)


def _described(happened: "WatchEventsResponse") -> dict[str, Any] | None:
    """Return an event as JSON; None: one of a newer node, that is not known here."""
    if happened.members is not None:
        kind = str(happened.members.kind.name).lower()
        return {"event": f"member-{kind}", "members": [member.name for member in happened.members.members]}
    if happened.user_event is not None:
        fired = happened.user_event
        return {"event": "user", "name": fired.name, **_payload(fired.payload), "lamport_time": fired.lamport_time}
    if happened.query is not None:
        asked = happened.query
        return {
            "event": "query",
            "name": asked.name,
            **_payload(asked.payload),
            "source": asked.source,
            "lamport_time": asked.lamport_time,
        }
    return None


def _text(described: Mapping[str, Any]) -> str:
    if "members" in described:
        return f"{described['event']}: {', '.join(described['members'])}"
    source = f" from {described['source']}" if "source" in described else ""
    payload = described.get("payload", described.get("payload_base64"))
    return f"{described['event']} {described['name']}{source}: {payload}"


def _encoded(payload: str) -> bytes:
    return payload.encode("utf-8", "surrogateescape")


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _write(line: str) -> None:
    print(line, flush=True)
