"""Publishes messages to brokers, beside HTTP: a driver takes a Message, and returns the broker's confirmation.

Knows no models.
"""
