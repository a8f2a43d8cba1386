from __future__ import annotations

import pytest
from attrs import fields

from proglog_trio.membership.profile import GossipProfile, ProfileName


def test_the_profiles_are_those_of_memberlist() -> None:
    lan, local, wan = (GossipProfile.named(name) for name in (ProfileName.LAN, ProfileName.LOCAL, ProfileName.WAN))
    assert lan == GossipProfile()
    names = (
        "probe_interval", "probe_timeout", "indirect_checks", "suspicion_multiplier", "suspicion_maximum_multiplier",
        "gossip_interval", "gossip_nodes", "retransmit_multiplier", "push_pull_interval", "gossip_to_the_dead",
        "stream_timeout", "awareness_maximum", "packet_bytes",
    )  # fmt: skip
    figures = {profile: tuple(getattr(profile, name) for name in names) for profile in (lan, local, wan)}
    assert figures[lan] == (1.0, 0.5, 3, 4, 6, 0.2, 3, 4, 30.0, 30.0, 10.0, 8, 1400)
    assert figures[local] == (1.0, 0.2, 1, 3, 6, 0.1, 3, 2, 15.0, 15.0, 1.0, 8, 1400)
    assert figures[wan] == (5.0, 3.0, 3, 6, 6, 0.5, 4, 4, 60.0, 60.0, 30.0, 8, 1400)


@pytest.mark.parametrize("name", [field.name for field in fields(GossipProfile)])
def test_no_figure_is_negative_or_no_number(name: str) -> None:
    for value in (-1, float("nan")):
        with pytest.raises(ValueError, match=name):
            GossipProfile(**{name: value})  # type: ignore[arg-type]  # one figure, whatever its type


def test_a_probe_times_out_within_its_interval() -> None:
    with pytest.raises(ValueError, match=r"probe_timeout .* must be shorter than probe_interval"):
        GossipProfile(probe_interval=0.5)
