"""Repair: what is damaged or missing, what of it peers can give, and putting that where it was."""
