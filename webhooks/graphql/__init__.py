"""Webhooks and their log in NetBox's GraphQL API.

NetBox finds types and filters by the model's name, so the classes have the plain names. GraphQL has one namespace for
all apps, in which NetBox's own webhooks are: there, everything of ours begins with "webhooks".
"""
