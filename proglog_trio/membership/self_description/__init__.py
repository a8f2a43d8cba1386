"""What a member says of itself: its tags, which may be changed while it runs, and its figures."""
