"""Each block of code in the docs is parsed, and run where possible.

A block without a language is output or a drawing.
"""

import ast
import configparser
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import graphql
import jsonschema
import pytest
import yaml
from dcim.models import Device, Site
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.db import connection
from django.urls import Resolver404, resolve, reverse
from rest_framework.test import APIClient
from standardwebhooks.webhooks import Webhook as StandardWebhook
from standardwebhooks.webhooks import WebhookVerificationError
from support.builders import NOWHERE, device, recorded, site, subscribe
from support.docs import PAGES, ROOT, all_blocks, block, blocks
from support.settings import change_settings

from devstack.ports import LOOPBACK, free_port
from devstack.process import Child, Processes, wait_until
from webhooks import conf
from webhooks.models import Credential, Webhook

HOST = 'https://netbox.example.com'
# Only bash parses these.
OTHERS = {
    *('cd', 'docker', 'echo', 'export', 'git', 'gunicorn', 'helm', 'kubectl', 'opentelemetry-instrument', 'pip', 'rm'),
    *('createdb', 'dropdb', 'pg_restore', 'psql', 'sed', 'sh', 'sha256sum', 'supervisorctl', 'systemctl', 'tar'),
}
BEFORE_A_COMMAND = re.compile(r'^(\$ |sudo (-u \w+ )?|\(|(\w+=\S* )+)+')
# The docs call programs directly or as a module.
PROGRAM = re.compile(r'(?:\S*/)?(?:python3?(?: -m| \S*/manage\.py| manage\.py)|[\w.-]+)')
COMMAND = re.compile(r'(\$ )?(sudo|manage\.py|scripts/\w+|curl|docker|kubectl|helm|pip|python3?|/opt/netbox/\S+)( |$)')
PATH = re.compile(r'`(/(?:plugins/webhooks|admin)/[\w/-]*)`')
EVERY_BLOCK = [
    pytest.param(language, text, id=f'{page.name}-{number}-{language or "plain"}')
    for page in PAGES
    for number, (language, text) in enumerate(all_blocks(page))
]


def commands(text: str) -> list[str]:
    """Return the commands, each in one line unless it quotes more."""
    found, begun = [], ''
    for line in re.sub(r'\\\n\s*', '', text).splitlines():
        begun += line
        try:
            complete = shlex.split(begun, comments=True)
        except ValueError:  # a quoted text continues
            begun += '\n'
            continue
        if complete:
            found.append(begun)
        begun = ''
    return found


def read_commands(text: str) -> None:
    checked = subprocess.run(['bash', '-n', '-c', text], capture_output=True, text=True, check=False)
    assert not checked.returncode, checked.stderr
    for line in commands(text):
        read_command(BEFORE_A_COMMAND.sub('', line, count=1))


def read_command(line: str) -> None:
    line = re.sub(r' > \S+$', '', line)
    program, *arguments = shlex.split(line, comments=True)
    if Path(program).name.startswith('python'):
        program, *arguments = [one for one in arguments if one != '-m']
    name = Path(program).name
    if name in ('netbox', 'manage.py'):
        read_management_command(*arguments)
    elif program.startswith('scripts/'):
        assert os.access(ROOT / program, os.X_OK), program
    elif name == 'curl':
        Curl(line)
    elif name in ('docker', 'kubectl') and any(one.endswith('manage.py') for one in arguments):
        read_management_command(*arguments[[one.endswith('manage.py') for one in arguments].index(True) + 1 :])
    elif not name.endswith('.py'):
        assert name in OTHERS, line


def read_management_command(name: str, *arguments: str) -> None:
    """A synopsis has its options in brackets."""
    app = get_commands()[name]
    parser = (load_command_class(app, name) if isinstance(app, str) else app).create_parser('manage.py', name)
    if not any(one.startswith('[') for one in arguments):
        parser.parse_args(arguments)
    options = {one.strip('[]') for one in arguments if one.startswith('[--')}
    assert options <= parser._option_string_actions.keys()


class Curl:
    """Sends curl's request through Django's test client."""

    def __init__(self, line: str) -> None:
        arguments = iter(shlex.split(line)[1:])
        self.method, self.headers, self.data, self.path = 'GET', [], None, ''
        for one in arguments:
            if one == '-X':
                self.method = next(arguments)
            elif one == '-H':
                self.headers.append(next(arguments))
            elif one == '-d':
                self.data = json.loads(next(arguments))
            else:
                assert one.startswith(f'{HOST}/'), one
                self.path = one.removeprefix(HOST)
        resolve(self.path.partition('?')[0])
        assert 'Authorization: Bearer <token>' in self.headers
        assert (self.data is None) == ('Content-Type: application/json' not in self.headers)

    def send(self, client: APIClient) -> Any:
        return client.generic(self.method, self.path, json.dumps(self.data), content_type='application/json')


def read_http(text: str) -> None:
    """Only NetBox's REST API has known paths."""
    head, _, body = text.partition('\n{')
    method, path, *_version = head.splitlines()[0].split()
    assert method in ('GET', 'POST')
    if path.startswith('/api/'):
        resolve(path)
        json.loads('{' + body)


def read_console(text: str) -> None:
    read_commands('\n'.join(line.removeprefix('$ ') for line in text.splitlines() if line.startswith('$ ')))


def read_dockerfile(text: str) -> None:
    for line in commands(text):
        instruction, _, rest = line.partition(' ')
        assert instruction in ('FROM', 'COPY', 'RUN')
        if instruction == 'RUN':
            for command in rest.split(' && '):
                read_command(BEFORE_A_COMMAND.sub('', command.strip(), count=1).removeprefix('/usr/local/bin/uv '))


def read_ini(text: str) -> None:
    parser = configparser.RawConfigParser()
    parser.optionxform = str
    parser.read_string(text)
    assert parser.sections()
    for section in parser.sections():
        for name in ('command', 'ExecStart'):
            if command := parser[section].get(name):
                read_command(command)


def read_json(text: str) -> None:
    json.loads(text if text.startswith('{') else f'{{{text}}}')


def read_hcl(text: str) -> None:
    for opening, closing in ('{}', '[]', '()'):
        assert text.count(opening) == text.count(closing)


def read_plain(text: str) -> None:
    assert [line for line in text.splitlines() if COMMAND.match(line)] == []


def read_yaml(text: str) -> None:
    assert all(yaml.safe_load_all(text))


def read_sql(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)


READERS: dict[str, Callable[[str], Any]] = {
    '': read_plain,
    'console': read_console,
    'dockerfile': read_dockerfile,
    'graphql': graphql.parse,
    'hcl': read_hcl,
    'http': read_http,
    'ini': read_ini,
    'js': str.split,  # the test of receivers runs it in Node-RED
    'json': read_json,
    'changed': str.split,  # scripts/test reads it, and a test of its own
    'layers': str.split,  # the test of the layers reads it
    'states': str.split,  # the test of the engine's statements reads it
    'doors': str.split,  # so does the test of the engine's doors
    'python': ast.parse,
    'sh': read_commands,
    'sql': read_sql,
    'toml': tomllib.loads,
    'yaml': read_yaml,
}


MISTAKES = (
    AssertionError,
    CommandError,
    KeyError,
    Resolver404,
    SyntaxError,
    ValueError,
    graphql.GraphQLError,
    yaml.YAMLError,
)


@pytest.mark.usefixtures('db')
@pytest.mark.parametrize('language, text', EVERY_BLOCK)
def test_a_block_is_what_it_says(language: str, text: str):
    READERS[language](text)


@pytest.mark.parametrize(
    'language, text',
    [
        ('sh', 'manage.py webhooks_stats'),
        ('sh', 'sudo -u netbox /opt/netbox/venv/bin/netbox webhooks_prune --hours 3'),
        ('sh', 'manage.py webhooks_status [--xml]'),
        ('sh', 'docker compose exec netbox /opt/netbox/netbox/manage.py webhooks_stats'),
        ('sh', 'scripts/tests unit'),
        ('sh', 'netcat localhost'),
        ('sh', 'echo "'),
        ('sh', f"curl {HOST}/api/plugins/webhooks/webhook/ -H 'Authorization: Bearer <token>'"),
        ('', 'manage.py webhooks_status'),
        ('dockerfile', 'RUN /opt/netbox/netbox/manage.py collect_static'),
        ('ini', '[Service]\nExecStart=/opt/netbox/venv/bin/python3 /opt/netbox/netbox/manage.py rq_worker'),
        ('http', 'POST /api/extras/event-rule/\n{}'),
        ('json', '{"a": }'),
        ('python', 'def'),
        ('yaml', 'a: ['),
        ('hcl', 'provider "restapi" {'),
        ('graphql', '{ a('),
    ],
)
def test_a_mistake_in_a_block_is_noticed(language: str, text: str):
    with pytest.raises(MISTAKES):
        READERS[language](text)


@pytest.mark.parametrize('name', ['supervisord.conf', 'netbox-webhooks-rq.service'])
def test_the_files_for_init_systems_start_commands_that_exist(name: str):
    read_ini((ROOT / 'contrib' / name).read_text())


def test_systemd_stops_no_worker_because_one_of_its_processes_ran_out_of_memory():
    """Its default, `OOMPolicy=stop`, ends all of them: nothing is sent until it starts the worker again."""
    added = block('installation.md', 'ini', '[Service]')
    own = (ROOT / 'contrib' / 'netbox-webhooks-rq.service').read_text()
    units = [configparser.RawConfigParser() for _ in range(2)]
    for unit, text in zip(units, (added, own), strict=True):
        unit.read_string(text)
    assert [unit['Service']['OOMPolicy'] for unit in units] == ['continue'] * 2
    for name in ('KillMode', 'TimeoutStopSec'):
        assert units[0]['Service'][name] == units[1]['Service'][name]


def test_pages_that_are_named_are_there():
    named = {path for page in PAGES for path in PATH.findall(page.read_text())}
    for path in named - {'/plugins/webhooks/metrics'}:  # needs METRICS_ENABLED
        resolve(path)
    assert {'/plugins/webhooks/status/', '/admin/webhook-backend-status/'} <= named
    with pytest.raises(Resolver404):
        resolve('/plugins/webhooks/stats/')


def test_operations_names_both_status_pages():
    section = (ROOT / 'docs/operations.md').read_text().partition('\n## The status page\n')[2].partition('\n## ')[0]
    assert PATH.findall(section) == [reverse('plugins:webhooks:status'), '/admin/webhook-backend-status/']


#
# The REST API's examples
#


def curls(page: str) -> list[Curl]:
    path = ROOT / page
    texts = [line for language, text in all_blocks(path) if language == 'sh' for line in commands(text)]
    return [Curl(line) for line in texts if line.startswith('curl ')]


@pytest.fixture
def third(db: None) -> Webhook:
    """The examples are about webhook 3."""
    site(name='Berlin 1')
    return subscribe(NOWHERE, Site, pk=3, secret='whsec_' + 'A' * 32, additional_headers='Authorization: Token x')


def test_the_readmes_request_defines_a_webhook(db: None, api_client: APIClient):
    (request,) = curls('README.md')
    answer = request.send(api_client)
    assert answer.status_code == 201, answer.content
    assert sorted(answer.json()['object_types']) == ['dcim.device', 'dcim.site']


def test_the_request_for_a_new_secret_is_answered_as_is_shown(third: Webhook, api_client: APIClient):
    (request,) = curls('docs/webhooks.md')
    answer = request.send(api_client)
    (shown,) = [json.loads(text) for text in blocks('webhooks.md', 'json')]
    assert answer.status_code == 200
    assert answer.json().keys() == shown.keys()
    assert answer.json()['secret'].startswith(request.data['prefix'])


def test_the_request_for_a_preview_is_answered_as_is_shown(third: Webhook, api_client: APIClient):
    (request,) = curls('docs/templates.md')
    refused = json.loads(block('templates.md', 'json', 'UndefinedError'))
    answer = request.send(api_client)
    assert (answer.status_code, answer.json()) == (400, refused)


def test_the_request_for_an_event_rule_makes_one(third: Webhook, api_client: APIClient):
    (text,) = blocks('webhooks.md', 'http')
    path, _, body = text.removeprefix('POST ').partition('\n')
    answer = api_client.post(path, json.loads(body) | {'action_object_id': third.pk}, format='json')
    assert answer.status_code == 201, answer.content


#
# Python
#


def python_of(page: str, what: str) -> str:
    (text,) = [text for text in blocks(page, 'python') if what in text]
    return text


@pytest.mark.parametrize(
    'before, plugins',
    [
        ('', ['webhooks']),
        ('PLUGINS = []\n', ['webhooks']),
        ("PLUGINS = ['netbox_branching']", ['netbox_branching', 'webhooks']),
    ],
)
def test_the_readme_switches_it_on_beside_other_plugins(tmp_path: Path, before: str, plugins: list[str]):
    (command,) = [text for language, text in all_blocks(ROOT / 'README.md') if language == 'sh' and 'tee' in text]
    path = tmp_path / 'configuration.py'
    path.write_text(before)
    command = command.replace('sudo ', '').replace('/opt/netbox/netbox/netbox/configuration.py', str(path))
    subprocess.run(['bash', '-c', command], check=True, capture_output=True)
    found = runpy.run_path(str(path))
    assert found['PLUGINS'] == plugins
    assert conf.resolve({}, types.SimpleNamespace(**found)).enabled


@pytest.mark.parametrize('page', ['brokers.md', 'configuration.md', 'extending.md', 'operations.md'])
def test_settings_in_the_docs_are_valid(page: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(conf.BROKER_DRIVERS, 'spool', 'netbox_spool:Spool')  # of extending.md
    found = blocks(page, 'python')
    texts = [text for text in found if re.match(r'(PLUGINS|PLUGINS_CONFIG|WEBHOOKS_\w+) = ', text)]
    assert texts
    for text in texts:
        configuration = types.SimpleNamespace()
        exec(text, vars(configuration))
        conf.resolve(getattr(configuration, 'PLUGINS_CONFIG', {}).get('webhooks', {}), configuration)


def test_the_loggers_are_configured_as_is_shown():
    text = python_of('operations.md', 'LOGGING')
    log = 'logging.getLogger("webhooks.drain").info("it is seen")'
    code = f'{text}\nimport logging.config\nlogging.config.dictConfig(LOGGING)\n{log}'
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert answer.stderr == 'it is seen\n'


@pytest.mark.usefixtures('db')
def test_the_old_key_is_not_needed_once_all_is_encrypted_anew_as_is_shown(monkeypatch: pytest.MonkeyPatch):
    old, new = 'o' * 32, 'n' * 32
    change_settings(monkeypatch, encryption_keys=(old,))
    url, headers, secret = 'https://awx.example.com/?token=t0ken', 'X-Key: k3y', 'whsec_' + 'A' * 32
    subscribe(url, additional_headers=headers, secret=secret, previous_secret='pr3vious')
    Credential.objects.create(name='AWX', type='bearer', hosts=['awx.example.com'], secret='cr3dential')
    change_settings(monkeypatch, encryption_keys=(new, old))
    exec(python_of('operations.md', 'reveal()'), {})
    change_settings(monkeypatch, encryption_keys=(new,))
    webhook, credential = Webhook.objects.get(), Credential.objects.get()
    stored = webhook.secret, webhook.previous_secret, webhook.additional_headers, credential.secret, webhook.payload_url
    assert [value.reveal() for value in stored] == [secret, 'pr3vious', headers, 'cr3dential', url]


@pytest.mark.usefixtures('committed')
def test_bulk_changes_are_recorded_as_the_docs_show():
    subscribe(NOWHERE, Site, Device)
    make, delete = [text for text in blocks('extending.md', 'python') if 'bulk_operation.send' in text]
    names = {'Site': Site, 'Device': Device}
    device(status='decommissioning')
    before = len(recorded())
    exec(make.replace('...', "[Site(name='a', slug='a'), Site(name='b', slug='b')]"), names)
    assert [event.kind for event in recorded()[before:]] == ['created'] * 2
    exec(delete, names)
    assert recorded(Device)[-1].kind == 'deleted'
    assert not Device.objects.exists()


@pytest.mark.usefixtures('db')
def test_a_body_is_checked_by_its_schema_as_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = python_of('payload.md', 'jsonschema')
    (body, *_) = [json.loads(one) for one in blocks('payload.md', 'json') if '"circuit_count"' in one]
    with (tmp_path / 'dcim.site.json').open('w') as file:
        call_command('webhooks_schema', 'dcim.site', stdout=file)
    monkeypatch.chdir(tmp_path)
    exec(text, {'body': body})
    with pytest.raises(jsonschema.ValidationError):
        exec(text, {'body': body | {'sequence': 'first'}})


class TestReceivers:
    SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'  # as in the example of the library

    @pytest.fixture
    def child(self, processes: Processes, tmp_path: Path) -> Iterator[Child]:
        (command,) = [text for text in blocks('receivers.md') if 'receiver_plain.py' in text]
        command = command.replace('cd /tmp\n', '').replace('/opt/netbox-webhooks', str(ROOT))
        self.port = free_port()
        child = processes.start(
            'receiver-plain',
            ['bash', '-c', f'exec env {command.replace("<your-secret>", self.SECRET)}'],
            environment=os.environ | {'PORT': str(self.port)},
            folder=tmp_path,
            client=True,
        )
        assert wait_until(lambda: self.status(b'', {}) == 401, timeout=60)
        yield child
        processes.stop(child)

    def status(self, body: bytes, headers: dict[str, str]) -> int:
        """Return 0 if nobody listens."""
        request = urllib.request.Request(f'http://{LOOPBACK}:{self.port}/netbox', body, headers)
        try:
            return urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    @pytest.mark.parametrize('length', [-1, 2**40])
    def test_it_reads_no_more_than_it_should(self, child, length):
        """It would wait for ever for such a body."""
        assert self.status(b'', {'Content-Length': str(length)}) == 413

    def send(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Return the names that the page's program defines."""
        (command,) = [text for text in blocks('receivers.md') if 'send_example.py' in text]
        _python, program, address, secret = shlex.split(command)
        assert (address, secret) == (f'http://{LOOPBACK}:9000', '<your-secret>')
        monkeypatch.setattr(sys, 'argv', [program, f'http://{LOOPBACK}:{self.port}', self.SECRET])
        return runpy.run_path(str(ROOT / program))

    def test_a_request_as_the_page_makes_it_is_taken_once(
        self, child: Child, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        sent = self.send(monkeypatch)
        assert capsys.readouterr().out == '204\n'
        assert self.status(sent['body'], sent['headers']) == 204
        assert self.status(sent['body'] + b' ', sent['headers']) == 401
        assert self.status(sent['body'], {**sent['headers'], 'webhook-id': 'another'}) == 401
        later = json.dumps({'event': 'later', 'object_type': 'dcim.site', 'data': {'display': 'Bern'}}).encode()
        now = datetime.now(UTC)
        signature = StandardWebhook(sent['secret']).sign('later', now, later.decode())
        head = {'webhook-id': 'later', 'webhook-timestamp': str(int(now.timestamp())), 'webhook-signature': signature}
        assert self.status(later, head) == 204
        assert wait_until(lambda: 'later dcim.site Bern' in child.log_tail(20), timeout=60)
        assert child.log_tail(20).count('created dcim.site Berlin 1') == 1

    def test_the_library_verifies_it_as_is_shown(self, child: Child, monkeypatch: pytest.MonkeyPatch):
        names = self.send(monkeypatch)
        exec(python_of('receivers.md', 'event = Webhook('), names)
        assert names['event'] == json.loads(names['body'])
        with pytest.raises(WebhookVerificationError):
            exec(python_of('receivers.md', 'event = Webhook('), {**names, 'body': names['body'] + b' '})
