"""A person at a browser, and the world beside it."""
