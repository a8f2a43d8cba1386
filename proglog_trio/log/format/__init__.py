"""The bytes of the log: frames, envelopes, records, positions, and the headers of segments. No files, no clock."""
