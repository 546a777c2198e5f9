"""Builds the signed request of a delivery, describes payloads, and keeps bodies for the log.

http_request: builds the request.
formats: makes its body, and the variables of templates. change_set makes the envelope of several changes, callbacks
    adds what plugins add, selection leaves keys out.
authorization: gives it a credential, and fetches OAuth2 tokens.
answers: decides whether an answer counts as delivered.
kept: keeps the bodies of attempts.
json_schema, asyncapi: describe payloads and channels.
schema_guard: finds webhooks that name keys which payloads no longer have.
"""
