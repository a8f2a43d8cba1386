"""The gRPC server: accepting connections, who may do what, and the services."""
