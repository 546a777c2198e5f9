"""`scripts/shell [command …]`: bash, or the command, with a fresh database, where `netbox …` works as usual.

The variables: NETBOX_ROOT, WEBHOOKS_STACK (see `stack`), and PGHOST … for psql.
"""

import os
import subprocess

from devstack.console import say
from devstack.interrupt import wait_in_foreground
from devstack.netbox import NetBox
from devstack.stack import Stack, netbox_in, running_stack

# NetBox makes migrations for developers only.
SETTINGS = 'DEVELOPER = True'


def main(arguments: list[str]) -> int:
    with running_stack() as stack, netbox_in(stack, 'netbox_shell', SETTINGS) as netbox:
        say(f'NETBOX_ROOT={netbox.root}')
        command = arguments or ['bash', '-i']
        child = subprocess.Popen(command, env=shell_environment(stack, netbox))
        return wait_in_foreground(child)


def shell_environment(stack: Stack, netbox: NetBox) -> dict[str, str]:
    address = netbox.database
    postgres = {
        'PGHOST': address.host,
        'PGPORT': str(address.port),
        'PGUSER': address.user,
        'PGPASSWORD': address.password,
        'PGDATABASE': address.name,
    }
    return os.environ | netbox.environment() | postgres | {'WEBHOOKS_STACK': str(stack.describe())}
