"""Repairing what is damaged in closed segments, and filling in what was missing.

Theory of operation
-------------------
A repair takes one segment, or a *run* of those around one whose header is damaged in both copies. It goes in steps,
each in a module of its own:

1. survey: read what stands there. Sound is *kept*. What cannot be read is *damaged*; index_match says of it what the
   index has: a marker, or an envelope without a frame, is known whole by that, a frame of records by its envelope.
2. missing_ranges: per origin, the sequences that the chain from the state before the run to the state after it skips,
   and where they stood, if that is known.
3. fetched_frames: what peers sent, each frame sound by itself, and hanging together with what stands around it by the
   CRCs of headers.
4. placement: which frame goes where. A place is known by an envelope, its own or the index's, or because nothing else
   can have stood there. There is no third way: what neither file tells stays, and is named.
5. segment_rewrite: a new store file beside the old one, read back, and renamed over it; then its index.

What holds always:

- An offset keeps its meaning. A record is put at the offset that it had, or at none.
- Each segment is as it was or as it should be, at any moment, also after a crash.
- What could be read before a repair can be read after it. Damaged bytes that stay are copied, and their entries too.
- What is *missing* at present has its marker in its place, which says who may have it and what follows; filling it is
  the same work, with both ends known.

plan.py puts the steps together and knows no Trio; run.py drives it, and has the frames fetched. Neither knows the log
but by a protocol.
"""
