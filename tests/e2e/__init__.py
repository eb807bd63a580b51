"""The road from Kafka to the ledgers, with real workers on real servers."""
