"""What is counted of questions, and of what they are answered from."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class DnsCounters:
    """What happened since the server began; and, as the newest listing has it, what it is made of.

    Attributes:
        answered: questions that were answered with records.
        no_data: questions for a name that there is, and a type of record that it has not.
        no_such_name: questions for a name below the zone that there is not.
        refused: questions about what is not in the zone, of another class, or for a transfer of the zone.
        malformed: questions that cannot be read, or are too large.
        not_implemented: what is asked is no query (an update, say), or of a later version of EDNS.
        ignored: packets and messages that are no question at all; they get no answer.
        truncated: of the answers, those that were cut for want of room, so that the question comes again by stream.
        unsent: answers that could not be sent.
        connections: streams that were accepted.
        connections_ended: streams that were ended for others, or because nothing came or went for too long.
        nodes: how many nodes there are to tell of now.
        nodes_without_address: of them, those whose rpc_addr is no address, or a host that was not found yet.
        nodes_without_name: of them, those whose name is none in DNS, or another's but for its case.
    """

    answered: int = 0
    no_data: int = 0
    no_such_name: int = 0
    refused: int = 0
    malformed: int = 0
    not_implemented: int = 0
    ignored: int = 0
    truncated: int = 0
    unsent: int = 0
    connections: int = 0
    connections_ended: int = 0
    nodes: int = 0
    nodes_without_address: int = 0
    nodes_without_name: int = 0
