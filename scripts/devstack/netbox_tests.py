"""`scripts/test --netbox [app …]`: NetBox's own tests, of these apps or of all, with each change compared.

See tests/support/netbox_tests.py for the comparison.
"""

import os
import subprocess

from devstack.folders import CHECKOUT
from devstack.interrupt import wait_in_foreground
from devstack.stack import netbox_in, running_stack

APPS = ('circuits', 'core', 'dcim', 'extras', 'ipam', 'tenancy', 'users', 'virtualization', 'vpn', 'wireless')
# The database is already migrated. RQ and permissions are as in NetBox's netbox/configuration_testing.py.
SETTINGS = """
PLUGINS_CONFIG = {'webhooks': {'enabled': True, 'allowed_models': ['*']}}
RQ = {'COMMIT_MODE': 'auto'}
DEFAULT_PERMISSIONS = {}
DATABASES['default']['TEST'] = {'NAME': DATABASES['default']['NAME']}
"""
RUNNER = 'support.netbox_tests.Runner'


def main(apps: list[str]) -> int:
    with running_stack() as stack, netbox_in(stack, 'netbox_own', SETTINGS) as netbox:
        environment = netbox.environment()
        environment['PYTHONPATH'] += f'{os.pathsep}{CHECKOUT / "tests"}'
        command = netbox.command('test', '--keepdb', '--noinput', f'--testrunner={RUNNER}', *(apps or APPS))
        return wait_in_foreground(subprocess.Popen(command, env=environment, cwd=netbox.root))
