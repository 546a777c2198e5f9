"""An empty, migrated NetBox as SQL, so that nobody waits for NetBox's 336 migrations, which take minutes.

`scripts/dump` writes one for the NetBox of the environment. `restore` takes the newest that is not newer than it, and
`migrate` then applies what is missing. tests/integration/installation/test_empty_netbox.py compares the migrations.
"""

import lzma
import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from devstack.console import say
from devstack.folders import CHECKOUT
from devstack.postgres import DatabaseAddress, binaries

FOLDER = Path(__file__).with_name('dumps')

# INSERTs, as COPY needs psql. Names of roles and rights are the server's own.
OPTIONS = ('--no-owner', '--no-privileges', '--no-comments', '--rows-per-insert=500')
# psql's own commands, and settings that other versions of PostgreSQL may not know. With an empty search path, triggers
# of NetBox 4.7.0 cannot be made: they compare paths of trees, and pg_dump cannot name the schema of that operator.
NOT_SQL = re.compile(
    r'^(\\(un)?restrict .*|SET (?!standard_conforming_strings|check_function_bodies)\w+ = .*;'
    r"|SELECT pg_catalog\.set_config\('search_path', .*;)\n",
    re.M,
)


def write(database: DatabaseAddress) -> Path:
    """Write the dump of a migrated database, named by the NetBox of this environment, and return its path."""
    command = [binaries() / 'pg_dump', *OPTIONS, '-h', database.host, '-p', str(database.port), '-U', database.user]
    environment = os.environ | {'PGPASSWORD': database.password}
    text = subprocess.run([*command, database.name], env=environment, capture_output=True, text=True, check=True).stdout
    path = FOLDER / f'netbox-{version("netbox")}.sql.xz'
    FOLDER.mkdir(exist_ok=True)
    path.write_bytes(lzma.compress(NOT_SQL.sub('', text).encode(), preset=9 | lzma.PRESET_EXTREME))
    say(f'{path.relative_to(CHECKOUT)}: {path.stat().st_size // 1024} KB')
    return path


def restore(database: DatabaseAddress) -> bool:
    """Fill an empty database from the best dump, in one transaction. Return whether there is any for this NetBox."""
    path = best_for(version('netbox'))
    if path is None:
        return False
    with database.connect() as connection:
        connection.execute(lzma.decompress(path.read_bytes()).decode())
    return True


def best_for(netbox: str) -> Path | None:
    """Return the newest dump of the same minor version, such as 4.7, that is not newer than this NetBox."""
    found = {_numbers(path.name): path for path in FOLDER.glob('netbox-*.sql.xz')}
    wanted = _numbers(netbox)
    fitting = [numbers for numbers in found if numbers[:2] == wanted[:2] and numbers <= wanted]
    return found[max(fitting)] if fitting else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r'\d+', text)[:3]))
