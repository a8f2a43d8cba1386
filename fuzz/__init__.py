"""Hostile input, by the million: `nox -s fuzz`. Not part of the package."""
