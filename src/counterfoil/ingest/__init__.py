"""How a record travels: from Kafka, through one transaction, to its ledgers, the duplicate count or the dead letters."""
