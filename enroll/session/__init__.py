"""Calls outside a run's loop, repeated until they are answered or `Patience` is exhausted."""
