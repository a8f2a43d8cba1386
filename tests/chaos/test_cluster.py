from pathlib import Path

import pytest
import trio

from tests.chaos.cluster import chaos_cluster


async def test_a_node_that_ends_by_itself_is_named_at_once(tmp_path: Path) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="n0 ended by itself with -9")):
        async with chaos_cluster(tmp_path, 1, 1, in_namespaces=False) as cluster:
            process = cluster.nodes["n0"].process
            assert process is not None
            process.kill()
            await trio.sleep_forever()
