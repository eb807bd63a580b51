"""Alerts, and their way out: raised once a cooldown, put into the outbox, taken to Kafka by the relay."""
