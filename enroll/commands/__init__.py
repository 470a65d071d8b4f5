"""What each command does: one module per verb, and what only one of them needs."""
