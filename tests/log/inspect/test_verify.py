from __future__ import annotations

from proglog_trio.log.inspect.verify import Severity, Verifier
from proglog_trio.log.storage.index import read_header_copy, read_sound_entries
from proglog_trio.log.storage.segment import decode_header
from tests.log.driving import DIRECTORY
from tests.log.repairing import make_index_sparse, write_log


def test_an_index_that_lacks_entries_is_named() -> None:
    """All that a repair knows of damage may be what it lacks."""
    written = write_log()
    written.opened.close()
    assert not list(Verifier(DIRECTORY, written.disk).run())
    files = written.closed[0]
    with_all = written.disk.content(files.index)
    index = written.disk.open(files.index)
    header_bytes = read_header_copy(index)
    *_, before, last = read_sound_entries(index, header_bytes, decode_header(header_bytes, files).salt)
    index.close()
    written.disk.put(files.index, with_all[: -last.length - before.length])
    (finding,) = Verifier(DIRECTORY, written.disk).run()
    assert finding.severity is Severity.WARNING
    assert (finding.file, finding.position, finding.offset) == (files.index, before.position, before.offset)
    assert finding.detail == "the index has nothing of 2 frames, which a repair would miss"
    written.disk.put(files.index, with_all)
    make_index_sparse(written.disk, files)
    assert not list(Verifier(DIRECTORY, written.disk).run())
