"""How things are said and written: words, remedies, log lines, files."""
