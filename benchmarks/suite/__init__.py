"""What `enroll` costs and how fast it is, beside what a user would pick instead.

`python benchmarks/performance.py` is the command; docs/performance.md says what is measured how.
"""
