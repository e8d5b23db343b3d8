"""A grid of parameters becomes a recorded job array."""
