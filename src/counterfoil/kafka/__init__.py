"""Kafka: how to connect, which cluster it is, and its topics."""
