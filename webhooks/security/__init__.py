"""Secrets: how they are stored, shown, and used to sign.

In: texts. Out: tokens, masks and signatures. Knows nothing of webhooks.
"""
