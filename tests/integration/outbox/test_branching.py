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


STRATEGIES = ('iterative', 'squash')


def test_a_branch_sends_nothing_and_its_merge_sends_each_change_once(told: dict, receiver: Receiver):
    for strategy in STRATEGIES:
        new = f'new-{strategy}'
        expected = [['created', new], ['deleted', f'doomed by {new}'], ['updated', f'edited by {new}']]
        assert told[strategy]['in_branch'] == []
        assert told[strategy]['merged'] == expected
        assert told[strategy]['tags'] == ['core']

        merged, reverted = _of_sites(receiver, strategy)
        assert sorted([body['event'], body['data']['name']] for body in merged) == expected
        created = next(body for body in merged if body['event'] == 'created')
        assert [tag['name'] for tag in created['data']['tags']] == ['core']
        assert created['request']['user'] == f'user-{strategy}'
        assert created['context'] == {'active_branch': None}
        assert {body['transaction']['branch']['name'] for body in merged} == {strategy}
        # Taking a merge back is no merge.
        assert len(reverted) == (3 if strategy == 'squash' else 0)

        # Webhooks belong to all branches.
        is_in_main, subscriptions = told[strategy]['defined']
        assert is_in_main
        assert subscriptions == 6

    # So their filters find what main has.
    assert [told[strategy]['copies'] for strategy in STRATEGIES] == [[1, 2], [2, 3, 2]]

    # Its own events have a user's name but no user.
    merges = [sent.json() for sent in receiver.requests if sent.path == '/merges']
    told_of = {body['data']['name']: (body['event'], body['username']) for body in merges}
    assert told_of == {name: ('branch_merged', f'user-{name}') for name in STRATEGIES}

    # A merge is one transaction: all of its objects are one change set, in parts.
    assert [told[strategy]['transactions'] for strategy in STRATEGIES] == [1, 1]
    parts = [body for body in _sets(receiver, 'iterative') if 'branch' in body['transaction']]
    assert [body['part'] for body in parts] == list(range(1, parts[0]['parts'] + 1))
    assert len(parts) > 1
    assert sum(len(body['changes']) for body in parts) == 63
    (transaction,) = {json.dumps(body['transaction']) for body in parts}
    assert json.loads(transaction)['count'] == 63
    assert json.loads(transaction)['branch'] == told['iterative']['branch']
    assert {json.dumps(one['transaction']['branch']) for body in parts for one in body['changes']} == {
        json.dumps(told['iterative']['branch'])
    }

    # A merge that was only tried leaves nothing behind: the next change is nobody's branch.
    assert sorted(told['squash']['beside']) == ['after', 'before', 'beside']
    *others, revert = _sets(receiver, 'squash')
    # Sets without common objects do not wait for each other.
    (merge,) = (one for one in others if 'branch' in one['transaction'])
    others.remove(merge)
    beside = [[change['data']['name'] for change in one['changes']] for one in others]
    assert sorted(beside) == [['before', 'after'], ['beside']]
    assert merge['transaction']['branch'] == told['squash']['branch']
    assert 'branch' not in revert['transaction']
    assert len(revert['changes']) == 3


def _of_sites(receiver: Receiver, strategy: str) -> tuple[list[dict], list[dict]]:
    """Return the bodies of sites' changes that came by a merge, and the others."""
    bodies = [sent.json() for sent in receiver.requests if sent.path == f'/{strategy}']
    sites = [body for body in bodies if body['object_type'] == 'dcim.site']
    return [body for body in sites if 'transaction' in body], [body for body in sites if 'transaction' not in body]


def _sets(receiver: Receiver, strategy: str) -> list[dict]:
    return [sent.json() for sent in receiver.requests if sent.path == f'/sets/{strategy}']
