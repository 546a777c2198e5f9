from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

from django.db import connection, connections

from devstack.postgres import DatabaseAddress


@contextmanager
def using(database: DatabaseAddress) -> Iterator[None]:
    """Let all threads of this process use another database."""
    settings = connection.settings_dict
    name = settings['NAME']
    connections.close_all()
    settings['NAME'] = database.name
    try:
        yield
    finally:
        connections.close_all()
        settings['NAME'] = name


def run(database: DatabaseAddress, code: str) -> list[str]:
    """Return the lines that the code prints. A process of its own would load NetBox, which takes seconds."""
    with using(database), redirect_stdout(StringIO()) as output:
        exec(code, {})
    return output.getvalue().splitlines()
