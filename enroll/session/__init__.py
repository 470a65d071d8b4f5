"""Calls outside of a run's loop: made until they are answered, or until patience is at its end."""
