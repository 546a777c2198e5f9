"""Sends a Request over HTTP or to a broker, and returns its Outcome. Knows no models."""
