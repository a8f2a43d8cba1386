from __future__ import annotations

from proglog_trio.membership import GossipConfig, Keyring, open_membership
from tests.membership.running import LOCAL, eventually


async def test_the_figures_of_a_member() -> None:
    keyring = Keyring((bytes(16),))
    async with open_membership(GossipConfig(name="a", profile=LOCAL, keyring=keyring), {"role": "web"}) as a:
        stats = a.stats()
        assert list(stats) == ["agent", "runtime", "serf", "tags"]
        assert stats["agent"] == {"name": "a", "address": str(a.address)}
        assert stats["tags"] == {"role": "web"}
        assert stats["serf"]["encrypted"] == "true"
        assert {name: stats["serf"][name] for name in ("members", "alive", "leaving", "left", "failed")} == {
            "members": 1, "alive": 1, "leaving": 0, "left": 0, "failed": 0,
        }  # fmt: skip
        assert stats["serf"]["health_score"] == 0
        other = GossipConfig(name="b", profile=LOCAL, keyring=keyring)
        async with open_membership(other, start_addresses=[a.address]) as b:
            assert b.stats()["serf"]["members"] == 2
            assert int(b.stats()["serf"]["member_time"]) > 1

        async def left() -> str | int:
            return a.stats()["serf"]["left"]

        await eventually(left, lambda count: count == 1)


async def test_the_figures_of_a_member_without_a_key() -> None:
    async with open_membership(GossipConfig(name="a", profile=LOCAL)) as a:
        serf = a.stats()["serf"]
        assert serf["encrypted"] == "false"
        # The names that agents give them.
        assert {
            "members", "failed", "left", "health_score", "member_time", "event_time", "query_time", "intent_queue",
            "event_queue", "query_queue", "encrypted", "coordinate_resets",
        } <= serf.keys()  # fmt: skip
