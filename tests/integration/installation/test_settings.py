"""Each test starts a NetBox, which reads settings at start."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from dcim.models import Site
from support.builders import NOWHERE, site, subscribe
from support.cases import first

CONFIGURED = """
import dataclasses, json
from django.conf import settings
from webhooks import conf
from webhooks.outbox import redis_queue
found = dataclasses.asdict(conf.get())
shown = {name: found[name] for name in found if isinstance(found[name], (bool, int, str, tuple, type(None)))}
shown['blocked_networks'] = [str(network) for network in found['blocked_networks']]
options = redis_queue.get().connection.connection_pool.connection_kwargs
shown['port'], shown['db'], shown['password'] = options['port'], options['db'], options.get('password')
shown['job_timeout'] = settings.RQ_QUEUES[conf.get().queue]['DEFAULT_TIMEOUT']
shown['queues'] = sorted(settings.RQ_QUEUES)
print('FOUND', json.dumps(shown))
"""
# It loads all pages.
CHECK = """
from django.core.management import call_command
call_command('check', tags=['webhooks'])
"""

SAVE = """
import django_rq
from dcim.models import Site
Site.objects.create(name='Bern', slug='bern')
django_rq.get_queue('default').enqueue('time.time')
"""


@pytest.fixture
def configured(make_netbox: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def run(lines: str, before: str = '') -> dict[str, Any]:
        answer = make_netbox(lines).run('shell', '-c', before + CONFIGURED)
        assert not answer.returncode, answer.stderr
        return {'warned': answer.stderr, **json.loads(answer.stdout.partition('FOUND ')[2])}

    return run


class TestPlaces:
    def test_settings_are_read_at_the_top_level_the_plugins_own_win_and_a_former_one_is_named(self, configured):
        found = configured(
            "WEBHOOKS_ORDER_WAIT = 'an hour'\n"
            "WEBHOOKS_ENABLED = False\nREDIS_HOST = '127.0.0.1'\nREDIS_PORT = 7001\nREDIS_DB = 5\n"
            "REDIS_PASSWORD = 'pass'\nREDIS_DEFAULT_TIMEOUT = 77\nWEBHOOKS_RETENTION_DAYS = 9\n"
            "PLUGINS_CONFIG = {'webhooks': {'enabled': True, 'redis_port': 7002, 'blocked_networks': ['10.0.0.0/8']}}",
            CHECK,
        )
        assert (found['enabled'], found['retention_days'], found['blocked_networks']) == (True, 9, ['10.0.0.0/8'])
        assert (found['port'], found['db'], found['password'], found['job_timeout']) == (7002, 5, 'pass', 77)
        assert found['queue'] == 'webhooks'
        assert 'webhooks' in found['queues']
        assert '(webhooks.W008) WEBHOOKS_ORDER_WAIT has no effect any more.' in found['warned']

    def test_webhooks_are_off_and_use_netboxs_redis_with_a_timeout_of_their_own(self, configured, stack):
        netboxs = "REDIS['tasks']['PASSWORD'] = 'of netbox'\n"
        found = configured(f'{netboxs}del WEBHOOKS_ENABLED\nREDIS_DEFAULT_TIMEOUT = 77')
        assert (found['enabled'], found['queue'], found['port']) == (False, 'low', stack.tasks.port)
        assert (found['job_timeout'], found['queues']) == (77, ['default', 'high', 'low'])
        assert found['password'] == 'of netbox'

    def test_another_database_is_used_where_netbox_has_a_url(self, configured, stack):
        found = configured(
            f"REDIS['tasks'] = {{'URL': 'redis://127.0.0.1:{stack.tasks.port}/0', 'SSL': False}}\nREDIS_DB = 6"
        )
        assert (found['port'], found['db']) == (stack.tasks.port, 6)


class TestWrongValues:
    # tests/unit/test_conf.py has a line for each setting. `--long`: more starts.
    @pytest.mark.parametrize(
        ('lines', 'said'),
        first(
            2,
            [
                ("WEBHOOKS_QUEUE = 'slow'", 'slow'),
                (
                    "PLUGINS_CONFIG = {'webhooks': {'retention_day': 5}}",
                    "PLUGINS_CONFIG['webhooks']['retention_day']: there is no such setting",
                ),
                ("WEBHOOKS_ENABLED = 'yes'", "WEBHOOKS_ENABLED: must be True or False, not 'yes'"),
                ("REDIS_PORT = '6379'", "REDIS_PORT: must be a whole number, not '6379'"),
                (
                    "PLUGINS_CONFIG = {'webhooks': {'blocked_networks': ['everything']}}",
                    "PLUGINS_CONFIG['webhooks']['blocked_networks']: 'everything' does not appear to be an IPv4",
                ),
            ],
        ),
    )
    def test_wrong_values_stop_the_start_with_one_line(self, make_netbox, lines: str, said: str):
        answer = make_netbox(lines).run('check')
        assert answer.returncode
        last = answer.stderr.strip().splitlines()[-1]
        name = lines.split(' ', maxsplit=1)[0] if lines.startswith('WEBHOOKS_') else said.partition(':')[0]
        assert said in last
        assert name.removeprefix('WEBHOOKS_').lower() in last.lower()


def test_the_queue_is_in_the_other_redis_and_a_worker_serves_it(other_redis, make_netbox, rqworker, receiver, stack):
    netbox = make_netbox(f"REDIS_HOST = '127.0.0.1'\nREDIS_PORT = {other_redis.port}")
    subscribe(receiver.url('/hook'), Site)
    netbox.warm.run('shell', '-c', SAVE)
    with other_redis.address.client() as other, stack.tasks.client() as tasks:
        assert other.llen('rq:queue:webhooks') == 1
        assert not [key for key in tasks.keys('*') if b'webhooks' in key]
        # NetBox's own jobs stay in its Redis.
        assert not other.exists('rq:queue:default')
        assert tasks.keys('rq:queue:*') == [b'rq:queue:default']
    rqworker('webhooks', netbox=netbox, redis=other_redis.address)
    (received,) = receiver.wait_for(1)
    assert received.json()['data']['name'] == 'Bern'


def test_without_settings_the_queue_is_in_netboxs_redis(committed, stack):
    subscribe(NOWHERE, Site)
    site()
    with stack.tasks.client() as tasks:
        assert tasks.llen('rq:queue:low') == 1
