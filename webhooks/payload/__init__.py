"""Builds the signed request of a delivery, describes payloads, and keeps bodies for the log."""
