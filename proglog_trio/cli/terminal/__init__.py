"""What a terminal is shown beside the results."""
