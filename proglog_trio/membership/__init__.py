"""Gossip membership: who is in the cluster, found out by SWIM with Lifeguard and told to Serf agents alike."""
