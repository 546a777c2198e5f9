"""Words, colours and groups that both UIs, the API and the docs share. This package knows no pages."""
