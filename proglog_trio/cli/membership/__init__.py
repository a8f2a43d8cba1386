"""Commands about a node as a member of its cluster: what it says of itself, and how far the others are."""
