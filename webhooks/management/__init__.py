"""Commands of manage.py, for operators. docs/operations.md and docs/webhooks.md describe them."""
