"""The forms of NetBox's pages. The admin uses some of them.

webhook, credential, as_code: one object. definition: both forms of a webhook. action_forms: the questions of actions.
filters: beside lists. bulk_edit, bulk_import: many objects at once.
masked: stored secrets in forms. secret: a new signing secret.
form_fields: kinds of fields.
"""
