"""Messages on the wire: their encoding, and what they say in the words of the other packages."""
