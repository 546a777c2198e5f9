"""Turns a Request into an Outcome. Knows no models."""
