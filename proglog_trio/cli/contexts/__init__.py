"""Contexts: clusters by name, with all that is needed to reach them, and which of them commands talk to."""
