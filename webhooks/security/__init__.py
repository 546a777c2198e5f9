"""Encrypts, masks and uses secrets: for columns, pages, answers and signatures. Knows nothing of webhooks."""
