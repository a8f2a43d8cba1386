"""A distributed commit log on Trio: nodes find each other by gossip and pull each other's records."""

__version__ = "0.1.0"
