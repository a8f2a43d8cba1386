"""What a member remembers over restarts: who was there, and how far its clocks had come.

```
Keeper       has what changes written, and gives back at a start what was (keeper.py)
├── Journal  what is to be written, and when all is written anew (journal.py)
├── Memory   what a file says, as a whole (memory.py)
├── lines    the format: one fact a line, each with its checksum (lines.py)
└── SnapshotFile   the file itself; it blocks (file.py)
```

lines, memory and journal do no I/O and read no clock; keeper is the Trio side.
"""
