"""Looking at a data directory without opening it for writing: verifying, comparing, dumping."""
