"""A company, its nightly exports, and what a face library must hold after each; see year.py."""
