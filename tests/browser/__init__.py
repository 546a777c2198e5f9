"""What people do, in a real browser on a real NetBox. A package, so that its servers end with it."""
