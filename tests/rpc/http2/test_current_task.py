from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType

import grpclib.utils
import pytest

from proglog_trio.rpc.http2.bridge import aio_as_trio, open_loop


async def _in_a_wrapper(utils: ModuleType) -> None:
    with utils.Wrapper():
        await asyncio.sleep(0)


async def test_grpclib_finds_the_task_inside_trio() -> None:
    async with open_loop():
        await aio_as_trio(_in_a_wrapper)(grpclib.utils)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.current_task is written in C from Python 3.12 on")
async def test_grpclib_still_keeps_what_it_found_when_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, grpclib asks asyncio each time: current_task.py can go."""
    assert grpclib.utils.__file__ is not None
    spec = importlib.util.spec_from_file_location("grpclib_utils_imported_first", grpclib.utils.__file__)
    assert spec is not None
    assert spec.loader is not None
    utils = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as before_trio_asyncio:
        before_trio_asyncio.setattr(asyncio, "current_task", sys.modules["_asyncio"].current_task)
        spec.loader.exec_module(utils)
    async with open_loop():
        with pytest.raises(RuntimeError, match="no running event loop"):
            await aio_as_trio(_in_a_wrapper)(utils)
