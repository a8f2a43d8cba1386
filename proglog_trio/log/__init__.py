"""The log on disk: batches in, durable, and out again. It knows files, not networks."""
