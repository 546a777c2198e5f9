"""Victims, servers to crash, and the audit of what must hold whatever was killed."""
