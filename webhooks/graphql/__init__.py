"""Webhooks and their log in GraphQL. NetBox finds the classes by the model's name.

GraphQL names need our prefix, since all apps share them.
"""
