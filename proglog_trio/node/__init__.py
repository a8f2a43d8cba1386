"""A node: its configuration, and the wiring of everything that it runs."""
