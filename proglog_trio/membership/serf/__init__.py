"""Serf's layer on top of SWIM: tags, Lamport clocks, intents, events and queries; without I/O, clock or randomness."""
