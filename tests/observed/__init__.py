"""Members of a cluster, agents and ours, one process each, that are told what to do and observed in the same way.

For what compares the two (benchmarks/membership.py) or mixes them (tests/soak): all that they say ends as Happenings
with times of one clock, that of the process which observes.
"""
