"""Which servers there are, for clients: GetServers tells it once, WatchServers for as long as one listens."""
