"""Measurement of speed: the network against other libraries, the data pipeline by step, and a training run as a whole."""
