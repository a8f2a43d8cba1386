"""Addresses on the wire: 4 raw bytes for IPv4, 16 for IPv6."""

from __future__ import annotations

from proglog_trio.membership.wire.msgpack_structs import Raw

ADDRESS = Raw(lengths=(4, 16))
ADDRESS_OR_NONE = Raw(lengths=(0, 4, 16))
