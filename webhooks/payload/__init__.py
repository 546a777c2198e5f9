"""Builds the signed request of a delivery."""
