"""How a record travels: from Kafka, through one transaction, to ledgers, duplicate count or dead letters."""
