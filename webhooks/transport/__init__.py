"""Turns a Request into an Outcome, never into an error. Knows no models."""
