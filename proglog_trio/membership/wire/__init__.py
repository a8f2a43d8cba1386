"""The wire protocol of HashiCorp memberlist and Serf, in bytes only: no socket, no clock.

What comes from the network gives a message or a DecodingError, and nothing else; what is ours and cannot be sent, a
ValueError.
"""
