"""Programs that measure: each prints its figures and the goals beside them."""
