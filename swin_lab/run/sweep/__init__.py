"""Sweeps: the jobs of a command with -m, each in processes of its own."""
