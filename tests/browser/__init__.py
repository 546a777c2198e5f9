"""A package, so its servers end with it."""
