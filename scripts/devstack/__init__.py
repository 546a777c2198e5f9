"""What `scripts/demo`, `scripts/test` and `scripts/shell` stand on: a NetBox with PostgreSQL and Redis of its own.

Every run has a folder of its own under the temporary folder, with data, ports and logs, and leaves neither files nor
processes behind. Only the prepared database and the virtual environment are kept, in the cache folder.

`stack` puts the parts together; the parts are one noun a file. Nothing here imports Django or the plugin: NetBox runs
in processes of its own.
"""
