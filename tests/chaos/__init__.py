"""Faults on purpose: crash points, and chaos."""
