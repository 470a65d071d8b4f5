"""How many calls may be in flight, and when: decided without a clock and without I/O."""
