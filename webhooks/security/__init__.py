"""Encrypts, masks and uses secrets: for columns, pages, answers and signatures. Knows nothing of webhooks.

encryption: encrypts secrets for columns and sessions.
signing: makes secrets, and signs requests with them.
masking: masks URLs.
fingerprints: show whether a secret has changed.
references: reads secrets from files and variables.
echoes: masks secrets that an answer repeats.
"""
