"""PostgreSQL and a Kafka broker from wheels, run as our children: for the demo, development and tests."""
