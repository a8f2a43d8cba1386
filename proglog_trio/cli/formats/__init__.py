"""How what is found is written: as JSON, and as lines for people."""
