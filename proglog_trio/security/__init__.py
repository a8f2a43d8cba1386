"""TLS, certificates and access policies, and reading them again when they change."""
