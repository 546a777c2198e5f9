import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from webhooks.conf import MAX_DURATION_DAYS, MAX_DURATION_SECONDS, Settings, _own_redis, resolve
from webhooks.constants import DEFAULT_MODELS

KEY, OTHER_KEY = 'k' * 32, 'o' * 40


def settings(top_level: dict[str, Any] | None = None, **user_config: Any) -> Settings:
    return resolve(user_config, SimpleNamespace(**top_level or {}))


def blocked(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in settings().blocked_networks)


def refusal(top_level: dict[str, Any] | None = None, **user_config: Any) -> str:
    with pytest.raises(ImproperlyConfigured) as refused:
        settings(top_level, **user_config)
    return str(refused.value)


class TestDefaults:
    def test_webhooks_are_off_by_default(self):
        assert not settings().enabled
        assert settings(enabled=True).enabled

    def test_the_queue_is_one_that_netbox_serves_and_leaves_unused(self):
        assert settings().queue == 'low'
        assert not settings().has_own_redis

    def test_the_models_are_those_of_the_seed(self):
        assert settings().allowed_models == DEFAULT_MODELS
        assert len(DEFAULT_MODELS) == 19

    def test_figures_are_those_of_the_contract(self):
        found = settings()
        assert (found.expire_after, found.retention_days) == (3 * 24 * 3600, 30)
        assert found.retention_size == 0

    @pytest.mark.parametrize('address', ['169.254.169.254', '0.0.0.0', '224.0.0.1', 'fe80::1', 'ff02::1', '::'])
    def test_blocked_networks_hold_those_of_no_receiver(self, address: str):
        assert any(ipaddress.ip_address(address) in network for network in settings().blocked_networks)

    @pytest.mark.parametrize('address', ['127.0.0.1', '10.0.0.1', '192.168.1.1', '172.16.0.1', '::1', 'fd12::1'])
    def test_blocked_networks_leave_out_those_of_internal_receivers(self, address: str):
        assert not blocked(address)
        assert blocked('169.254.169.254')


class TestSources:
    @pytest.mark.parametrize(
        ('top_level', 'name', 'value'),
        [
            ('WEBHOOKS_ENABLED', 'enabled', True),
            ('WEBHOOKS_QUEUE', 'queue', 'high'),
            ('WEBHOOKS_RETENTION_DAYS', 'retention_days', 7),
            ('WEBHOOKS_RETENTION_DAYS_FAILED', 'retention_days_failed', 90),
            ('WEBHOOKS_RETENTION_SIZE', 'retention_size', 1_000_000),
            ('REDIS_HOST', 'redis_host', 'redis.example.com'),
            ('REDIS_PORT', 'redis_port', 6380),
            ('REDIS_DB', 'redis_db', 0),
            ('REDIS_PASSWORD', 'redis_password', 'secret'),
            ('REDIS_DEFAULT_TIMEOUT', 'redis_default_timeout', 600),
        ],
    )
    def test_each_name_works_in_both_places(self, top_level: str, name: str, value: Any):
        assert getattr(settings({top_level: value}), name) == value
        assert getattr(settings(**{name: value}), name) == value

    def test_the_plugins_own_win(self):
        found = settings({'WEBHOOKS_ENABLED': True, 'REDIS_PORT': 1, 'REDIS_HOST': 'a'}, enabled=False, redis_port=2)
        assert (found.enabled, found.redis_port, found.redis_host) == (False, 2, 'a')

    def test_none_means_not_set(self):
        assert settings({'WEBHOOKS_ENABLED': True, 'REDIS_HOST': None}, enabled=None).enabled
        assert not settings({'REDIS_HOST': None}, redis_port=None).has_own_redis

    def test_names_without_the_prefix_are_not_ours(self):
        assert not settings({'ENABLED': True, 'QUEUE': 'high'}).enabled
        assert settings({'WEBHOOKS_ENABLED': True, 'QUEUE': 'high'}).enabled

    def test_any_iterable_configuration_is_not_asked_for_more(self):
        assert settings({'SECRET_KEY': 'x', 'DATABASE': {}}) == Settings()


class TestValues:
    def test_models_are_added_to_those_of_the_seed(self):
        assert settings(allowed_models=['dcim.Cable', 'dcim.site']).allowed_models == (*DEFAULT_MODELS, 'dcim.cable')

    def test_a_star_allows_all_models(self):
        assert settings(allowed_models=['*']).any_model
        assert not settings(allowed_models=['dcim.cable']).any_model

    def test_blocked_networks_are_parsed(self):
        assert settings(blocked_networks=['10.0.0.0/8', '2001:db8::/32']).blocked_networks == (
            ipaddress.ip_network('10.0.0.0/8'),
            ipaddress.ip_network('2001:db8::/32'),
        )
        assert settings(blocked_networks=[]).blocked_networks == ()
        assert settings(blocked_networks=[ipaddress.ip_address('10.0.0.1')]).blocked_networks == (
            ipaddress.ip_network('10.0.0.1/32'),
        )

    def test_keys_are_kept_in_their_order(self):
        assert settings(encryption_keys=[KEY, OTHER_KEY]).encryption_keys == (KEY, OTHER_KEY)

    def test_a_folder_is_resolved(self, tmp_path: Path):
        link = tmp_path / 'link'
        (tmp_path / 'real').mkdir()
        link.symlink_to(tmp_path / 'real')
        assert settings(certificate_root=str(link)).certificate_root == (tmp_path / 'real').resolve()

    def test_a_source_of_cloudevents_is_a_uri_reference(self):
        for source in ('https://netbox.example.com/', 'urn:netbox:berlin', '/netbox%20berlin'):
            assert settings(cloudevents_source=source).cloudevents_source == source

    def test_the_longest_times_are_times(self):
        found = settings(retention_days=MAX_DURATION_DAYS, expire_after=MAX_DURATION_SECONDS)
        now = datetime.now(UTC)
        assert now - timedelta(days=found.retention_days) < now
        assert now < now + timedelta(seconds=found.expire_after)

    def test_a_former_setting_is_left_out_whatever_its_value(self):
        assert settings({'WEBHOOKS_ORDER_WAIT': 'an hour'}, order_wait=-1) == settings()

    def test_a_minute_is_time_enough_to_be_sent(self):
        assert settings(expire_after=60).expire_after == 60

    @pytest.mark.parametrize('kind', [tuple, set, frozenset])
    def test_a_list_may_be_written_otherwise(self, kind: type):
        assert settings(encryption_keys=kind([KEY])).encryption_keys == (KEY,)


class TestWrongValues:
    @pytest.mark.parametrize('value', [[], None, 'webhooks', {'enabled'}])
    def test_a_configuration_that_is_no_dictionary_is_refused_by_name(self, value: Any):
        with pytest.raises(ImproperlyConfigured, match=r"PLUGINS_CONFIG\['webhooks'\]: must be a dictionary, not "):
            resolve(value, SimpleNamespace())

    @pytest.mark.parametrize(
        ('name', 'value'),
        [
            ('enabled', 'False'),
            ('enabled', 1),
            ('enabled', []),
            ('admin', 'False'),
            ('proxy_resolves_names', 'False'),
            ('queue', ''),
            ('queue', 5),
            ('redis_host', ''),
            ('redis_host', 6379),
            ('redis_port', '6379'),
            ('redis_port', 0),
            ('redis_port', 65536),
            ('redis_port', True),
            ('redis_db', -1),
            ('redis_db', 1.5),
            ('redis_password', 5),
            ('redis_default_timeout', 0),
            ('redis_default_timeout', '300'),
            ('allowed_models', 'dcim.site'),
            ('allowed_models', ['site']),
            ('allowed_models', ['dcim.site.name']),
            ('allowed_models', [5]),
            ('allowed_models', {'dcim.site': True}),
            ('retention_days', 0),
            ('retention_days', '30'),
            ('retention_days', 36_501),
            ('retention_days_failed', 29),  # less than retention_days
            ('retention_size', -1),
            ('retention_size', True),
            ('feed_readers', -1),
            ('feed_readers', 1001),
            ('retention_size', 2**63),
            ('expire_after', 59),
            ('expire_after', 10**12),
            ('blocked_networks', '10.0.0.0/8'),
            ('blocked_networks', ['10.0.0.0/33']),
            ('additional_blocked_networks', ['10.0.0.0/33']),
            ('blocked_networks', ['10.0.0.1/8']),
            ('blocked_networks', ['example.com']),
            ('blocked_networks', [1]),
            ('blocked_networks', [True]),
            ('blocked_networks', [b'abcd']),
            ('encryption_keys', KEY),
            ('encryption_keys', []),
            ('encryption_keys', [KEY[1:]]),
            ('encryption_keys', [5]),
            ('encryption_keys', {KEY, f'{KEY}2'}),
            ('secret_folders', '/run/secrets'),
            ('secret_folders', ['run/secrets']),
            ('secret_folders', ['/']),
            ('secret_folders', [5]),
            ('secret_variables', 'WEBHOOKS_KEY'),
            ('secret_variables', ['*']),
            ('secret_variables', [5]),
            ('certificate_root', '.'),
            ('certificate_root', '/no/such/folder'),
            ('certificate_root', __file__),
            ('certificate_root', 5),
            ('certificate_root', '/' + 300 * 'x'),
            ('cloudevents_source', ''),
            ('cloudevents_source', 'NetBox 1'),
            ('cloudevents_source', 'urn:netbox:%zz'),
            ('cloudevents_source', 'https://netbox.example.com/\n'),
            ('cloudevents_source', 5),
        ],
    )
    def test_the_line_names_the_setting(self, name: str, value: Any):
        top_level = name.upper() if name.startswith('redis_') else f'WEBHOOKS_{name.upper()}'
        for said, where in (
            (refusal(**{name: value}), f"PLUGINS_CONFIG['webhooks']['{name}']: "),
            (refusal({top_level: value}), f'{top_level}: '),
        ):
            assert said.startswith(where)
            assert '\n' not in said

    def test_secrets_are_not_said(self):
        assert 'short-secret' not in refusal(encryption_keys=['short-secret'])
        assert '4711' not in refusal(redis_password=4711)

    def test_an_unknown_name_is_an_error(self):
        assert refusal(enabled=True, enable=True) == "PLUGINS_CONFIG['webhooks']['enable']: there is no such setting"

    @pytest.mark.parametrize('queue', ['high', 'default', 'low'])
    def test_a_queue_of_netbox_cannot_be_in_another_redis(self, queue: str):
        assert 'queue' in refusal(redis_host='redis.example.com', queue=queue)


class TestOwnRedis:
    """Unset values come from NetBox's REDIS['tasks']."""

    NETBOX = SimpleNamespace(
        TASKS_REDIS_HOST='netbox.example.com',
        TASKS_REDIS_PORT=6379,
        RQ_PARAMS={
            'HOST': 'netbox.example.com',
            'PORT': 6379,
            'SSL': False,
            'SSL_CERT_REQS': 'required',
            'DB': 3,
            'USERNAME': 'netbox',
            'PASSWORD': 'of netbox',
            'DEFAULT_TIMEOUT': 300,
        },
    )
    SENTINELS = SimpleNamespace(
        TASKS_REDIS_HOST='localhost',
        TASKS_REDIS_PORT=6379,
        RQ_PARAMS={
            'SENTINELS': [('sentinel.example.com', 26379)],
            'MASTER_NAME': 'netbox',
            'SOCKET_TIMEOUT': None,
            'CONNECTION_KWARGS': {'socket_connect_timeout': 10},
            'DB': 3,
            'USERNAME': '',
            'PASSWORD': '',
            'DEFAULT_TIMEOUT': 300,
        },
    )

    def own(self, netbox: Any = NETBOX, **user_config: Any) -> dict[str, Any]:
        return _own_redis(settings(**user_config), netbox)

    @pytest.mark.parametrize(
        'setting', [{'redis_host': 'h'}, {'redis_port': 1}, {'redis_db': 0}, {'redis_password': 'p'}]
    )
    def test_it_is_one_as_soon_as_its_address_differs(self, setting: dict[str, Any]):
        found = settings(**setting)
        assert found.has_own_redis
        assert found.queue == 'webhooks'

    def test_an_empty_password_is_no_address(self):
        found = settings({'REDIS_PASSWORD': ''})
        assert (found.has_own_redis, found.queue, found.worker) == (False, 'low', 'netbox-rq')
        assert settings(redis_password='', queue='default').queue == 'default'
        assert self.own(redis_password='', redis_port=7000)['PASSWORD'] is None

    def test_it_has_a_worker_of_its_own(self):
        assert settings().worker == 'netbox-rq'
        assert settings(redis_db=5).worker == 'netbox-webhooks-rq'

    def test_a_timeout_is_no_address(self):
        assert not settings(redis_default_timeout=600).has_own_redis
        assert settings(redis_default_timeout=600, redis_port=7000).has_own_redis

    def test_its_queue_can_be_named(self):
        assert settings(redis_host='redis.example.com', queue='mine').queue == 'mine'

    def test_all_that_is_set_is_used(self):
        config = self.own(redis_host='r', redis_port=1, redis_db=2, redis_password='p', redis_default_timeout=600)
        assert [config[key] for key in ('HOST', 'PORT', 'DB', 'PASSWORD', 'DEFAULT_TIMEOUT')] == ['r', 1, 2, 'p', 600]

    def test_settings_of_our_redis_that_are_not_set_are_those_of_netbox(self):
        config = self.own(redis_port=7000)
        assert [config[key] for key in ('HOST', 'PORT', 'DB', 'DEFAULT_TIMEOUT', 'SSL')] == [
            'netbox.example.com', 7000, 3, 300, False,
        ]  # fmt: skip

    def test_its_first_database_is_used_where_netbox_has_another(self):
        assert self.own(redis_db=0)['DB'] == 0

    def test_its_server_gets_neither_netboxs_user_nor_url(self):
        netbox = SimpleNamespace(**vars(self.NETBOX))
        netbox.RQ_PARAMS = {**self.NETBOX.RQ_PARAMS, 'URL': 'redis://netbox.example.com/3'}
        config = self.own(netbox, redis_host='r')
        assert config['HOST'] == 'r'
        assert not config.keys() & {'USERNAME', 'URL'}
        assert self.own(netbox, redis_db=5).keys() >= {'USERNAME', 'URL'}

    def test_netbox_keeps_its_own(self):
        before = dict(self.NETBOX.RQ_PARAMS)
        self.own(redis_host='r', redis_db=9)
        assert before == self.NETBOX.RQ_PARAMS

    def test_sentinels_of_netbox_do_not_lead_elsewhere(self):
        config = self.own(self.SENTINELS, redis_host='r')
        assert (config['HOST'], config['PORT']) == ('r', 6379)
        assert not config.keys() & {'SENTINELS', 'MASTER_NAME', 'SOCKET_TIMEOUT', 'CONNECTION_KWARGS'}

    def test_another_database_of_the_same_sentinels_can_be_used(self):
        config = self.own(self.SENTINELS, redis_db=5)
        assert (config['SENTINELS'], config['DB']) == ([('sentinel.example.com', 26379)], 5)
