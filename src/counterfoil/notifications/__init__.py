"""Alerts, and their way out: raised once a cooldown, taken from the outbox to Kafka, told on each channel."""
