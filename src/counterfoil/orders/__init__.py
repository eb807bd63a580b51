"""Orders as a whole: which were canceled."""
