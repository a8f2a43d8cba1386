"""The log's files, and what is known of them.

Theory of operation
-------------------
A log is a row of *segments*. A segment is a store file and an index file, and the newest one is *active*: it alone is
written to, by the committer's thread alone. The others are *closed*: only a repair replaces their files, and only
retention removes them, both under the catalog's files_lock.

What holds always:

- A segment that has its name is whole: header durable, directory synced. Files are made under other names before.
- What stands before ActiveSegment.position in the store file is durable. Nothing behind it is served, or in the index.
- The index tells of nothing that is not durable in the store file. The other way round it may lack what is.
- The store file is true and the index a hint to it: no reader needs it. A repair believes an entry only where the store
  file cannot be read.
- Every envelope and entry has a CRC that is continued from the segment's salt, which no producer knows.
- A scan trusts envelopes only, and never a length in a frame.

Who may change what: segment.py writes the active segment; catalog.py says which segments there are; recovery (above
this package) mends the newest one at opening; log/repair writes closed ones anew. damage_registry.py is told of what
any of them meets, and decides nothing.
"""
