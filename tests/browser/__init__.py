"""People at a real browser and NetBox. It is a package, so its servers end with it."""
