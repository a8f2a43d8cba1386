"""Changes this member's tags while it runs: written down first, then told to all."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import trio
from attrs import define, evolve, field

from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.core_access import CoreAccess
from proglog_trio.membership.self_description.own_tags import OwnTags
from proglog_trio.membership.self_description.tags_file import load_tags_file, save_tags_file
from proglog_trio.membership.wire.tags import TagsTooLarge, encode_tags


async def tags_at_start(config: GossipConfig, given: Mapping[str, str]) -> OwnTags:
    """Return the tags that a member begins with: those that it is given, and what was changed of them before.

    Raises:
        TagsFileError: what was changed cannot be read.
        TagsTooLarge: they take more than 512 bytes.
    """
    fixed = config.fixed_tags if config.cluster_tag is None else config.fixed_tags | {config.cluster_tag}
    kept: Mapping[str, str | None] = {}
    if config.tags_file is not None:
        kept = await trio.to_thread.run_sync(load_tags_file, config.tags_file)
    tags = OwnTags.kept(given, kept, fixed)
    try:
        encode_tags(tags.all())
    except TagsTooLarge as error:
        if not kept:
            raise
        raise TagsTooLarge(f"{error}, with those in {config.tags_file}") from None
    return tags


@define(eq=False)
class TagKeeper:
    """See the module.

    Attributes:
        gossip: tells the others.
        tags: as they are.
    """

    gossip: CoreAccess
    tags: OwnTags
    # Changes are written down one after the other.
    _changing: trio.Lock = field(factory=trio.Lock)

    def give(self, tags: Mapping[str, str]) -> None:
        """Have other tags given to this member, and tell the others; raises TagsTooLarge."""
        self.tags = self.tags.with_given(tags)
        self._tell()

    async def change(self, set: Mapping[str, str], delete: Collection[str]) -> None:  # noqa: A002 - Serf's word for it
        """Change some tags; see Membership.change_tags, whose errors it raises."""
        async with self._changing:
            before = self.tags
            fresh = before.changed(set, delete)
            if fresh == before:
                return
            # By this goes what is given meanwhile: there is room for both.
            self.tags = fresh
            try:
                file = self.gossip.config.tags_file
                if file is not None:
                    await trio.to_thread.run_sync(save_tags_file, file, fresh.changes)
            except BaseException:
                self.tags = evolve(before, given=self.tags.given)
                raise
            self._tell()

    def _tell(self) -> None:
        tags = self.tags.all()
        self.gossip.act(lambda: self.gossip.core.set_tags(tags))
