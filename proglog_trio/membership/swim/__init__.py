"""SWIM with suspicion and Lifeguard, wire-compatible with HashiCorp memberlist; without I/O, clock or randomness."""
