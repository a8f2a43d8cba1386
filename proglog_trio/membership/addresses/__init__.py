"""Which addresses names stand for, and which of them members may have."""
