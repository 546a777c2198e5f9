"""The GraphQL API: queries for webhooks, credentials, events and deliveries.

schema: the queries.
types: the fields that they show.
filters: the filters of lists.
visibility: which rows' payloads the asker may see.
"""
