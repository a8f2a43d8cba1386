"""A cluster of agents and members of ours that loses a tenth of its packets, for as long as is asked for."""
