"""From the manifest's bytes to its rows, and from rows to results."""
