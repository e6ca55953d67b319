"""A Kafka of our own, for tests and for the demo."""
