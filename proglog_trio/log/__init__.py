"""The log on disk: batches in, durable, and out again. It knows files, not networks."""

from .batch import Appended, Batch
from .config import LogConfig
from .damage_registry import Damage, DamageRegistry
from .fetched import FetchedFrames
from .frame import Frame, FrameHeader, decode_frame, iterate_frames
from .holes import Hole
from .log import Log
from .missing import Missing
from .origin import Origin
from .position import Position, Range
from .reader import Chunk, LogReader, Skipped
from .record import Record, pack_records, pack_values, payload_crc, unpack_records
from .repair import RepairOutcome, RepairPlan
from .repair_service import repair_segment
from .segment import SegmentFiles
from .service import open_log
from .serving import FoundFrames
from .walk import StoredFrame

__all__ = [
    "Appended",
    "Batch",
    "Chunk",
    "Damage",
    "DamageRegistry",
    "FetchedFrames",
    "FoundFrames",
    "Frame",
    "FrameHeader",
    "Hole",
    "Log",
    "LogConfig",
    "LogReader",
    "Missing",
    "Origin",
    "Position",
    "Range",
    "Record",
    "RepairOutcome",
    "RepairPlan",
    "SegmentFiles",
    "Skipped",
    "StoredFrame",
    "decode_frame",
    "iterate_frames",
    "open_log",
    "pack_records",
    "pack_values",
    "payload_crc",
    "repair_segment",
    "unpack_records",
]
