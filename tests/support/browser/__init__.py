"""A person at a browser, and the people and workers beside it."""
