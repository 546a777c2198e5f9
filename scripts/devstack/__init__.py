"""A NetBox with its own PostgreSQL and Redis, for `scripts/demo`, `scripts/test` and `scripts/shell`.

A run leaves neither files nor processes behind. Only the prepared database and the virtual environment stay, in the
cache folder. Nothing here imports Django or the plugin: NetBox runs in its own processes.
"""
