"""Orders as a whole: which were canceled, what was refunded, what they came to."""
