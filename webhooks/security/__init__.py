"""Stores, masks and uses secrets. Knows nothing of webhooks."""
