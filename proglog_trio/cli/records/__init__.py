"""Records on their way from lines to a producer, and what becomes of them."""
