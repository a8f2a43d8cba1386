"""The client library; programs import it as proglog_trio.client.

Nothing is imported here: a node pulls with some of these modules, a command asks with one, and neither needs them all.
"""
