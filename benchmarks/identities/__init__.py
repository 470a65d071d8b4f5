"""People under two ids and photos under the wrong id: planted, looked for, and counted.

`python benchmarks/identity.py` is the command.
"""
