"""The log on disk: batches in, durable, and out again. It knows files, not networks."""

from .batch import Appended, Batch
from .config import LogConfig
from .frame import Frame, FrameHeader, decode_frame, iterate_frames
from .log import Log
from .origin import Origin
from .position import Position, Range
from .reader import Chunk, LogReader, Skipped
from .record import Record, pack_records, pack_values, payload_crc, unpack_records
from .service import open_log
from .walk import StoredFrame

__all__ = [
    "Appended",
    "Batch",
    "Chunk",
    "Frame",
    "FrameHeader",
    "Log",
    "LogConfig",
    "LogReader",
    "Origin",
    "Position",
    "Range",
    "Record",
    "Skipped",
    "StoredFrame",
    "decode_frame",
    "iterate_frames",
    "open_log",
    "pack_records",
    "pack_values",
    "payload_crc",
    "unpack_records",
]
