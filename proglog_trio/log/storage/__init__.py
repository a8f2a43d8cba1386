"""The files of a log: the disk as it is seen, segments and their indexes, and what else a directory keeps."""
