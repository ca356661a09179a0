"""Tests of `worker.lms`."""
