"""Faces and people taken out of a library: `enroll remove`, `enroll forget`."""
