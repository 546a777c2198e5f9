"""Reads the settings: from PLUGINS_CONFIG['webhooks'], else from WEBHOOKS_… and REDIS_… in configuration.py itself."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit, urlunsplit

from django.core.exceptions import ImproperlyConfigured

from .constants import BROKER_DRIVERS, DEFAULT_BLOCKED_NETWORKS, DEFAULT_MODELS, DRIVER_ENTRY_POINTS

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MODEL_LABEL = re.compile(r'^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$')
# After a `%` come two hexadecimal digits.
URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2}){1,500}")
# In `allowed_models`: every model that can be sent.
ALL_MODELS = '*'
# A broker's name is the host of a webhook's URL.
BROKER_NAME = re.compile(r'[a-z0-9]([a-z0-9_-]*[a-z0-9])?')
# If any of these is set, the plugin has a Redis of its own.
REDIS_ADDRESS = ('redis_host', 'redis_port', 'redis_db')
# Times that lie so far in the past or future can be computed. Beyond, PostgreSQL or Python would fail.
MAX_DURATION_DAYS = 36_500
MAX_DURATION_SECONDS = MAX_DURATION_DAYS * 24 * 3600
# The default of `queue` in a Redis of its own, and in NetBox's, whose workers serve it already.
OWN_QUEUE = 'webhooks'
SHARED_QUEUE = 'low'
# In a Redis of its own, `queue` must have another name than these.
NETBOX_QUEUES = ('high', 'default', 'low')
NETBOX_WORKER = 'utilities.rqworker.NetBoxRQWorker'
OUR_WORKER = 'webhooks.worker.WebhooksWorker'
# Settings of 1.0.0 that have no effect any more. NetBox starts with them, and a check names them.
FORMER_SETTINGS = ('order_wait',)

#
# Parsers: each returns the value of a setting, or raises ValueError with the reason
#


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f'must be True or False, not {value!r}')
    return value


def _integer(low: int, high: int | None = None) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f'must be a whole number, not {value!r}')
        if value < low or (high is not None and value > high):
            limits = f'at least {low}' if high is None else f'from {low} to {high}'
            raise ValueError(f'must be {limits}, not {value}')
        return value

    return parse


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f'must be a non-empty string, not {value!r}')
    return value


def _password(value: Any) -> str:
    """Return the password of a Redis. '' means none, even if NetBox's Redis has one. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError('must be a string, or empty for no password')
    return value


def _list(value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f'must be a list, not {value!r}')
    return list(value)


def _models(value: Any) -> tuple[str, ...]:
    labels = [_model_label(item) for item in _list(value)]
    return tuple(dict.fromkeys((*DEFAULT_MODELS, *labels)))


def _model_label(value: Any) -> str:
    label = value.lower() if isinstance(value, str) else ''
    if label != ALL_MODELS and not MODEL_LABEL.match(label):
        raise ValueError(f"{value!r} is not a model: write 'app.model', such as 'dcim.site'")
    return label


def _networks(value: Any) -> tuple[Network, ...]:
    networks = _list(value)
    # ip_network() takes numbers and bytes as addresses.
    if wrong := [item for item in networks if isinstance(item, int | bytes)]:
        raise ValueError(f'{wrong[0]!r} is not a network: write a string such as "10.0.0.0/8"')
    return tuple(map(ipaddress.ip_network, networks))


def _keys(value: Any) -> tuple[str, ...]:
    keys = _list(value)
    if isinstance(value, set | frozenset) and len(value) > 1:
        raise ValueError('must be a list, not a set: the order matters, because the first key encrypts')
    if not keys or not all(isinstance(key, str) and len(key) >= 32 for key in keys):
        raise ValueError('must be a list of strings, each with 32 or more characters')
    return tuple(keys)


def _uri_reference(value: Any) -> str:
    """Return the value if it is a reference to a URI: RFC 3986, section 4.1, in ASCII. Raises ValueError."""
    if not isinstance(value, str) or not URI_REFERENCE.fullmatch(value):
        raise ValueError(f'must be a URI such as "https://netbox.example.com/", not {value!r}')
    return value


def _folder(value: Any) -> Path:
    path = Path(value)
    if not path.is_absolute() or not path.is_dir():
        raise ValueError(f'must be the absolute path of an existing folder, not {value!r}')
    return path.resolve()


def _folders(value: Any) -> tuple[Path, ...]:
    """Return the folders. They need not exist: some hosts have no worker, and no secrets. Raises ValueError."""
    folders = [Path(item) for item in _list(value)]
    if wrong := [folder for folder in folders if not folder.is_absolute() or folder == Path('/')]:
        raise ValueError(f'{str(wrong[0])!r} is no folder such as /run/secrets: write its absolute path')
    return tuple(folders)


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = _list(value)
    if wrong := [item for item in patterns if not isinstance(item, str) or not item.strip('*?')]:
        raise ValueError(f'{wrong[0]!r} is no name or pattern such as WEBHOOKS_*')
    return tuple(patterns)


def _brokers(value: Any) -> dict[str, dict[str, Any]]:
    """Return {name: options} of the brokers. Raises ValueError, whose text shows no option: any may be a secret."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a dictionary: the options of each broker, by its name')
    return {name: _broker(name, options) for name, options in value.items()}


def _broker(name: Any, options: Any) -> dict[str, Any]:
    if not isinstance(name, str) or not BROKER_NAME.fullmatch(name):
        raise ValueError(f'{name!r} is not a name of a broker: use lower-case letters, digits, "-" and "_"')
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ValueError(f'{name!r} must be a dictionary of options')
    drivers = {*BROKER_DRIVERS, *(found.name for found in entry_points(group=DRIVER_ENTRY_POINTS))}
    if options.get('driver') not in drivers:
        raise ValueError(f"the 'driver' of {name!r} must be one of {', '.join(sorted(drivers))}")
    addresses = options.get('addresses', [])
    if isinstance(addresses, str) or not all(isinstance(one, str) for one in _list(addresses)):
        raise ValueError(f"the 'addresses' of {name!r} must be a list of patterns, such as 'netbox.*'")
    return dict(options)


#
# Settings
#


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, parsed and checked. Durations are in seconds, unless the name says otherwise.

    Beside the type of each stands its parser.
    """

    enabled: Annotated[bool, _bool] = False
    admin: Annotated[bool, _bool] = True
    queue: Annotated[str, _text] = SHARED_QUEUE
    redis_host: Annotated[str | None, _text] = None
    redis_port: Annotated[int | None, _integer(1, 65535)] = None
    redis_db: Annotated[int | None, _integer(0)] = None
    redis_password: Annotated[str | None, _password] = None
    redis_default_timeout: Annotated[int | None, _integer(1)] = None
    allowed_models: Annotated[tuple[str, ...], _models] = DEFAULT_MODELS
    retention_days: Annotated[int, _integer(1, MAX_DURATION_DAYS)] = 30
    # For events with a failed delivery. None: as long as the others.
    retention_days_failed: Annotated[int | None, _integer(1, MAX_DURATION_DAYS)] = None
    retention_size: Annotated[int, _integer(0, 2**63 - 1)] = 0
    expire_after: Annotated[int, _integer(60, MAX_DURATION_SECONDS)] = 3 * 24 * 3600
    feed_readers: Annotated[int, _integer(0, 1000)] = 1
    histogram_by_webhook: Annotated[bool, _bool] = True
    blocked_networks: Annotated[tuple[Network, ...], _networks] = _networks(DEFAULT_BLOCKED_NETWORKS)
    additional_blocked_networks: Annotated[tuple[Network, ...], _networks] = ()
    proxy_resolves_names: Annotated[bool, _bool] = False
    encryption_keys: Annotated[tuple[str, ...], _keys] = ()
    certificate_root: Annotated[Path | None, _folder] = None
    # Secrets by reference are read below these folders, and from variables whose names match these patterns.
    secret_folders: Annotated[tuple[Path, ...], _folders] = ()
    secret_variables: Annotated[tuple[str, ...], _patterns] = ()
    cloudevents_source: Annotated[str | None, _uri_reference] = None
    # {name: options}. Options hold secrets, so repr() leaves them out.
    brokers: Annotated[Mapping[str, Mapping[str, Any]], _brokers] = field(default_factory=dict, repr=False)

    @property
    def has_own_redis(self) -> bool:
        """Return whether webhooks use a Redis that is not NetBox's. An empty password alone does not count."""
        return bool(self.redis_password) or any(getattr(self, name) is not None for name in REDIS_ADDRESS)

    @property
    def worker(self) -> str:
        """Return the name of the service whose worker serves our queue, as the documentation names it."""
        return 'netbox-webhooks-rq' if self.has_own_redis else 'netbox-rq'

    @property
    def any_model(self) -> bool:
        """Return whether every model that can be sent is allowed."""
        return ALL_MODELS in self.allowed_models


_settings = Settings()
_former: list[str] = []


def get() -> Settings:
    """Return the settings of this process. Before `install` they are the defaults."""
    return _settings


def former() -> list[str]:
    """Return where settings are set that have no effect any more, such as `WEBHOOKS_ORDER_WAIT`."""
    return _former


def install(user_config: Mapping[str, Any]) -> None:
    """Read the settings, and add our queue and our class of workers to NetBox's settings for RQ.

    It runs once a process, while NetBox's own settings load. Raises ImproperlyConfigured.
    """
    global _settings  # noqa: PLW0603  (read once a process)
    from netbox import settings as netbox_settings

    _settings = resolve(user_config, netbox_settings.configuration)
    looked_up = [_look_up(name, user_config, netbox_settings.configuration) for name in FORMER_SETTINGS]
    _former.extend(where for found, where in looked_up if found is not None)
    if _settings.has_own_redis:
        netbox_settings.RQ_QUEUES[_settings.queue] = _own_redis(_settings, netbox_settings)
    elif _settings.queue not in netbox_settings.RQ_QUEUES:
        raise ImproperlyConfigured(
            f'{_name("queue")}: {_settings.queue!r} is not one of the queues '
            f'{", ".join(sorted(netbox_settings.RQ_QUEUES))}'
        )
    elif _settings.redis_default_timeout:
        queue = netbox_settings.RQ_QUEUES[_settings.queue]
        netbox_settings.RQ_QUEUES[_settings.queue] = {**queue, 'DEFAULT_TIMEOUT': _settings.redis_default_timeout}
    if _settings.enabled and netbox_settings.RQ.get('WORKER_CLASS') == NETBOX_WORKER:
        netbox_settings.RQ['WORKER_CLASS'] = OUR_WORKER


def resolve(user_config: Mapping[str, Any], configuration: Any) -> Settings:
    """Return the settings. `configuration`: the module configuration.py. Raises ImproperlyConfigured."""
    if not isinstance(user_config, Mapping):
        raise ImproperlyConfigured(f"PLUGINS_CONFIG['webhooks']: must be a dictionary, not {user_config!r}")
    parsers = {one.name: get_args(one.type)[1] for one in fields(Settings)}
    if unknown := sorted(set(user_config) - parsers.keys() - set(FORMER_SETTINGS)):
        raise ImproperlyConfigured(f'{_name(unknown[0])}: there is no such setting')
    values = {}
    for name, parser in parsers.items():
        found, where = _look_up(name, user_config, configuration)
        if found is not None:
            values[name] = _parse(where, parser, found)
    parsed = Settings(**values)
    if parsed.retention_days_failed is not None and parsed.retention_days_failed < parsed.retention_days:
        where = _look_up('retention_days_failed', user_config, configuration)[1]
        raise ImproperlyConfigured(f'{where}: must not be less than retention_days')
    if parsed.has_own_redis:
        values.setdefault('queue', OWN_QUEUE)
        if values['queue'] in NETBOX_QUEUES:
            raise ImproperlyConfigured(
                f'{_name("queue")}: {values["queue"]!r} is a queue of NetBox itself. With a Redis of your own, choose '
                f'another name'
            )
    return Settings(**values)


def _look_up(name: str, user_config: Mapping[str, Any], configuration: Any) -> tuple[Any, str]:
    if user_config.get(name) is not None:
        return user_config[name], _name(name)
    top_level = name.upper() if name.startswith('redis_') else f'WEBHOOKS_{name.upper()}'
    return getattr(configuration, top_level, None), top_level


def _name(name: str) -> str:
    return f"PLUGINS_CONFIG['webhooks']['{name}']"


def _parse(where: str, parser: Callable[[Any], Any], value: Any) -> Any:
    try:
        return parser(value)
    except (OSError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'{where}: {error}') from None


def _own_redis(settings: Settings, netbox_settings: Any) -> dict[str, Any]:
    """Return the RQ settings of our queue. Where nothing is set, NetBox's REDIS['tasks'] counts."""
    config = dict(netbox_settings.RQ_PARAMS)
    if settings.redis_host or settings.redis_port:
        for key in ('SENTINELS', 'MASTER_NAME', 'SOCKET_TIMEOUT', 'CONNECTION_KWARGS', 'URL', 'USERNAME'):
            config.pop(key, None)
        config['HOST'] = settings.redis_host or netbox_settings.TASKS_REDIS_HOST
        config['PORT'] = settings.redis_port or netbox_settings.TASKS_REDIS_PORT
    if settings.redis_db is not None:
        config['DB'] = settings.redis_db
        if 'URL' in config:
            # RQ prefers the database in a URL to DB.
            config['URL'] = urlunsplit(urlsplit(config['URL'])._replace(path=f'/{settings.redis_db}'))
    if settings.redis_password is not None:
        config['PASSWORD'] = settings.redis_password or None
    if settings.redis_default_timeout is not None:
        config['DEFAULT_TIMEOUT'] = settings.redis_default_timeout
    return config
