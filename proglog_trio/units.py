"""Units of memory, for bounds and defaults: `64 * MEBIBYTE`."""

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
GIBIBYTE = 1024 * MEBIBYTE
