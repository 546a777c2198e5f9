"""A person at a browser, and what happens beside the pages."""
