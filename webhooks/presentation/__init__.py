"""Words, colours and groups that both UIs, the API and the docs share. This package knows no pages.

fields: the fields of a webhook, in groups, and which place leaves which field out.
credential_fields: the fields of a credential, likewise.
headlines: a delivery in one line.
json_text: JSON laid out for people.
links: addresses of NetBox's pages about our models.
moments: times for people.
progress: how far a backfill, or a walk over config contexts, is, as one reader may see it.
states: the state of a webhook in a word.

Actions, with label, icon and permission, are in services/actions.py.
"""
