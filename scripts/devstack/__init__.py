"""The base of `scripts/demo`, `scripts/test` and `scripts/shell`: a NetBox with its own PostgreSQL and Redis.

Each run keeps its data, ports and logs in a temporary folder, and leaves neither files nor processes behind. Only the
prepared database and the virtual environment stay, in the cache folder.

`stack` puts the parts together, one noun a file. Nothing here imports Django or the plugin: NetBox runs in its own
processes.
"""
