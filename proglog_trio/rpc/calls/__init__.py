"""What this program asks of other nodes."""
