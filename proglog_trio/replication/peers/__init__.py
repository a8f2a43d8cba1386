"""What is known of the other nodes: which there are, what they say that they have, how far that can be relied on."""
