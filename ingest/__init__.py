"""The door: verifies webhooks, makes them durable, answers."""
