import json
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.receiver import Receiver

SCENARIO = Path(__file__).parents[2] / 'support' / 'branching_scenario.py'
SETTINGS = """
from netbox_branching.utilities import DynamicSchemaDict

PLUGINS = ['webhooks', 'netbox_branching']
DATABASES = DynamicSchemaDict(DATABASES)
WEBHOOKS_ALLOWED_MODELS = ['netbox_branching.branch']
DATABASE_ROUTERS = ['netbox_branching.database.BranchAwareRouter']
"""

# `shell -c` takes no arguments, so the code sets its own.
CALL = """
import sys
sys.argv.append({url!r})
exec(compile(open({path!r}).read(), {path!r}, 'exec'), {{'__name__': 'scenario'}})
"""


@pytest.fixture
def told(make_netbox: Callable, receiver: Receiver) -> dict:
    """Run the scenario once, because a branch copies all tables."""
    netbox = make_netbox(SETTINGS, fresh=True)
    migrated = netbox.run('migrate', '--skip-checks', timeout=300)
    assert migrated.returncode == 0, migrated.stderr
    result = netbox.run('shell', '-c', CALL.format(url=receiver.url('').rstrip('/'), path=str(SCENARIO)), timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_branch_sends_nothing_and_its_merge_sends_each_change_once(told: dict, receiver: Receiver):
    for strategy in ('iterative', 'squash'):
        new = f'new-{strategy}'
        expected = [['created', new], ['deleted', f'doomed by {new}'], ['updated', f'edited by {new}']]
        assert told[strategy]['in_branch'] == []
        assert told[strategy]['merged'] == expected
        assert told[strategy]['tags'] == ['core']

        bodies = [sent.json() for sent in receiver.requests if sent.path == f'/{strategy}']
        assert sorted([body['event'], body['data']['name']] for body in bodies) == expected
        created = next(body for body in bodies if body['event'] == 'created')
        assert [tag['name'] for tag in created['data']['tags']] == ['core']
        assert created['request']['user'] == f'user-{strategy}'
        assert created['context'] == {'active_branch': None}

        # Webhooks belong to all branches.
        is_in_main, subscriptions = told[strategy]['defined']
        assert is_in_main
        assert subscriptions == 6

    # Its own events have a user's name but no user.
    merges = [sent.json() for sent in receiver.requests if sent.path == '/merges']
    told_of = {body['data']['name']: (body['event'], body['username']) for body in merges}
    assert told_of == {name: ('branch_merged', f'user-{name}') for name in ('iterative', 'squash')}
