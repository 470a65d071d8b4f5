"""Reports on runs and ledgers, for people and for programs."""
