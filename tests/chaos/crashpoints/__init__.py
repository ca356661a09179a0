"""Crash points of the commands side, on real processes."""
