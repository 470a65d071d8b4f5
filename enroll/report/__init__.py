"""What a run was like and what a ledger holds: for people and for programs."""
