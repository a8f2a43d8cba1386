"""Pull replication: every node pulls what the others wrote. The logic here knows frames and positions, not gRPC."""
