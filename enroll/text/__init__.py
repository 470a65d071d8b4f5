"""How things are worded and written: numbers, tables, remedies, log lines, files."""
