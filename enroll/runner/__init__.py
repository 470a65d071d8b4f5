"""A run while it goes on: its one loop, and what that is made of."""
