"""Message brokers, beside HTTP: takes a Message, and returns what the broker confirmed. Knows no models."""
