"""Third-party receivers accept our requests. `scripts/receivers` installs and runs them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.db import transaction
from support.builders import site, subscribe
from support.docs import block
from support.engine import pass_retry_waits, work
from support.fixtures.servers import StackDescription
from support.zabbix import is_installed, zabbix

from devstack.folders import CHECKOUT
from devstack.netbox import WebServer
from devstack.ports import LOOPBACK, accepts, free_port
from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.models import Credential, Delivery
from webhooks.presets import all_presets

pytestmark = [pytest.mark.usefixtures('committed'), pytest.mark.long]

SECRET = 's3cret-of-ours'
SIGNED = 'X-Hub-Signature-256: sha256={{ hmac() }}'
# Uses GitHub's own library, and prints each delivery.
OCTOKIT = """
import { createServer } from 'node:http'
import { Webhooks, createNodeMiddleware } from '@octokit/webhooks'
const webhooks = new Webhooks({ secret: process.env.SECRET })
webhooks.onAny(({ id, name, payload }) => console.log(JSON.stringify({ id, name, display: payload.data.display })))
createServer(createNodeMiddleware(webhooks, { path: '/' })).listen(Number(process.env.PORT), '127.0.0.1')
"""
# Verifies with the library of Standard Webhooks, reads with that of CloudEvents, and prints each event.
CLOUDEVENTS = """
import { createServer } from 'node:http'
import { HTTP } from 'cloudevents'
import { Webhook } from 'standardwebhooks'
const secret = process.env.SECRET
const webhook = secret.startsWith('whsec_') ? new Webhook(secret) : new Webhook(secret, {format: 'raw'})
createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray()).toString()
    try {
        webhook.verify(body, request.headers)
        for (const event of [HTTP.toEvent({headers: request.headers, body})].flat()) {
            event.validate()
            console.log(JSON.stringify(event))
        }
        response.writeHead(204).end()
    } catch (error) {
        response.writeHead(400).end(`${error}`)
    }
}).listen(Number(process.env.PORT), '127.0.0.1')
"""
FLOWS = [
    {'id': 'tab', 'type': 'tab', 'label': 'NetBox'},
    {
        'id': 'in',
        'z': 'tab',
        'type': 'http in',
        'url': '/netbox',
        'method': 'post',
        'skipBodyParsing': True,
        'wires': [['verify']],
    },
    {
        'id': 'verify',
        'z': 'tab',
        'type': 'function',
        'func': block('receivers/services.md', 'js', 'timingSafeEqual'),
        'libs': [{'var': 'crypto', 'module': 'crypto'}],
        'wires': [['out']],
    },
    {'id': 'out', 'z': 'tab', 'type': 'http response', 'wires': []},
]
RULEBOOK = """
- name: NetBox
  hosts: all
  sources:
    - eda.builtin.webhook:
        host: 127.0.0.1
        port: "{{ PORT | int }}"
        ADMITS: "{{ SECRET }}"
  rules:
    - name: A site is made
      condition: event.payload.event == "created" and event.payload.object_type == "dcim.site"
      action:
        debug:
          msg: "seen {{ event.payload.data.display }}"
"""
FEED = """
- name: NetBox
  hosts: all
  sources:
    - ansible_rulebook_feed:
        url: "{{ URL }}"
        token: "{{ TOKEN }}"
        state: "{{ STATE }}"
        wait: 1
  rules:
    - name: A site is made
      condition: event.event == "created" and event.object_type == "dcim.site"
      action:
        debug:
          msg: "seen {{ event.data.display }}"
"""
OAUTH2 = """
import { OAuth2Server } from 'oauth2-mock-server'
const server = new OAuth2Server()
await server.issuer.keys.generate('RS256')
await server.start(Number(process.env.PORT), '127.0.0.1')
"""


@contextmanager
def started(*command: str, **options: Any) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(*command: str, secret: str = SECRET, **options: Any) -> Iterator[tuple[int, subprocess.Popen]]:
    """Run a program that listens on $PORT."""
    port = free_port()
    environment = {**os.environ, 'PORT': str(port), 'SECRET': secret}
    command = tuple(part.replace('$PORT', str(port)) for part in command)
    with started(*command, env=environment, **options) as process:
        assert wait_until(lambda: accepts(port), timeout=60)
        yield port, process


def installed(name: str) -> Path:
    path = Path(os.environ.get('RECEIVERS', '/nowhere')) / name
    if not path.exists():
        pytest.skip('scripts/receivers installs it')
    return path


def script(name: str, code: str) -> str:
    path = installed('node_modules').parent / f'{name}.mjs'
    path.write_text(code)
    return str(path)


def line_with(process: subprocess.Popen, text: str) -> str:
    """Return '' if the program ends before."""
    return next((line for line in process.stdout if text in line), '')


def outcome() -> tuple[str, int | None]:
    work()
    last = Delivery.objects.order_by('pk').last()
    return last.status, last.response_status


@pytest.mark.skipif(not shutil.which('webhook'), reason='scripts/receivers installs it')
@pytest.mark.parametrize(('algorithm', 'header'), [('sha1', ''), ('sha256', '-256'), ('sha512', '-512')])
def test_debians_webhook_verifies_the_signature(tmp_path: Path, algorithm: str, header: str):
    seen, hooks = tmp_path / 'seen', tmp_path / 'hooks.json'
    signature = {'source': 'header', 'name': f'X-Hub-Signature{header}'}
    rule = {'match': {'type': f'payload-hmac-{algorithm}', 'secret': SECRET, 'parameter': signature}}
    hook = {
        'id': 'netbox',
        'execute-command': '/usr/bin/tee',
        'pass-arguments-to-command': [
            {'source': 'string', 'name': str(seen)},
            {'source': 'payload', 'name': 'data.display'},
        ],
        'command-working-directory': str(tmp_path),
        'trigger-rule': rule,
    }
    hooks.write_text(json.dumps([hook]))
    with running('webhook', '-hooks', str(hooks), '-ip', LOOPBACK, '-port', '$PORT') as (port, _process):
        line = f"X-Hub-Signature{header}: {algorithm}={{{{ hmac('{algorithm}') }}}}"
        url = f'http://{LOOPBACK}:{port}/hooks/netbox'
        webhook = subscribe(url, Site, secret=SECRET, additional_headers=line, max_attempts=1)
        site(name='Genève')
        assert outcome() == ('delivered', 200)
        assert wait_until(seen.exists, timeout=60)
        webhook.secret = 'another one'
        webhook.save()
        site()
        # Debian's version 2.8 answers 500 to a wrong signature.
        assert outcome() == ('failed', 500)


def test_githubs_library_verifies_the_signature():
    with running('node', script('octokit', OCTOKIT), stdout=subprocess.PIPE) as (port, process):
        headers = f'{SIGNED}\nX-GitHub-Event: push\nX-GitHub-Delivery: {{{{ webhook_id }}}}'
        url = f'http://{LOOPBACK}:{port}/'
        webhook = subscribe(url, Site, secret=SECRET, additional_headers=headers, max_attempts=1)
        site(name='Genève')
        assert outcome() == ('delivered', 200)
        heard = json.loads(process.stdout.readline())
        assert heard == {'id': str(Delivery.objects.get().uuid), 'name': 'push', 'display': 'Genève'}
        webhook.secret = 'another one'
        webhook.save()
        site()
        assert outcome() == ('failed', 400)


@pytest.mark.parametrize('secret', [SECRET, 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'])
@pytest.mark.parametrize('together', [{}, {'change_set': True}], ids=['single', 'change set'])
def test_libraries_for_javascript_verify_and_read_cloudevents(secret, together):
    with running('node', script('cloudevents', CLOUDEVENTS), secret=secret, stdout=subprocess.PIPE) as (port, process):
        url = f'http://{LOOPBACK}:{port}/'
        webhook = subscribe(url, Site, secret=secret, payload_format='cloudevents', max_attempts=1, **together)
        with transaction.atomic():
            places = [site(name=name) for name in ('Genève', 'Zürich')]
        assert outcome() == ('delivered', 204)
        heard = [json.loads(process.stdout.readline()) for _ in places]
        assert [event['partitionkey'] for event in heard] == [f'dcim.site:{place.pk}' for place in places]
        assert [event['data']['display'] for event in heard] == ['Genève', 'Zürich']
        assert heard[0]['sequence'] < heard[1]['sequence']
        webhook.secret = 'another one'
        webhook.save()
        site()
        assert outcome() == ('failed', 400)


def test_a_flow_of_node_red_verifies_the_signature(tmp_path: Path):
    flows = tmp_path / 'flows.json'
    flows.write_text(json.dumps(FLOWS))
    options = ('-D', f'uiHost={LOOPBACK}', '-D', 'httpAdminRoot=false', '-D', 'telemetry.enabled=false')
    program = installed('node_modules/node-red/red.js')
    command = ('node', str(program), '--userDir', str(tmp_path), '--port', '$PORT', *options, str(flows))
    with running(*command, stdout=subprocess.PIPE) as (port, process):
        assert line_with(process, 'Started flows')
        url = f'http://{LOOPBACK}:{port}/netbox'
        webhook = subscribe(url, Site, secret=SECRET, max_attempts=1, **all_presets()['nodered'].fields)
        site(name='Genève')
        assert outcome() == ('delivered', 204)
        assert line_with(process, 'Genève')
        webhook.secret = 'another one'
        webhook.save()
        site()
        assert outcome() == ('failed', 401)


def rulebook(folder: Path, text: str, variables: str, *options: str) -> tuple[str, ...]:
    """ansible-rulebook has its own virtual environment."""
    path, programs = folder / 'rulebook.yml', installed('eda/bin/ansible-rulebook').parent
    path.write_text(text)
    command = (str(programs / 'ansible-rulebook'), '-r', str(path), '--env-vars', variables, *options)
    return ('env', f'PATH={programs}:{os.environ["PATH"]}', 'PYTHONUNBUFFERED=1', *command)


def test_event_driven_ansible_verifies_the_signature(tmp_path: Path):
    command = rulebook(tmp_path, RULEBOOK.replace('ADMITS', 'hmac_secret'), 'PORT,SECRET')
    with running(*command, stdout=subprocess.PIPE) as (port, process):
        preset = all_presets()['eda'].fields
        url = f'http://{LOOPBACK}:{port}/endpoint'
        webhook = subscribe(url, Site, secret=SECRET, max_attempts=1, **preset)
        site(name='Genève')
        assert outcome() == ('delivered', 200)
        assert line_with(process, 'seen Genève')
        webhook.secret = 'another one'
        webhook.save()
        site()
        assert outcome() == ('failed', 401)
        webhook.additional_headers = ''
        webhook.save()
        site()
        assert outcome() == ('failed', 400)


def test_event_driven_ansible_takes_a_token(tmp_path: Path):
    command = rulebook(tmp_path, RULEBOOK.replace('ADMITS', 'token'), 'PORT,SECRET')
    with running(*command, stdout=subprocess.PIPE) as (port, process):
        host = f'http://{LOOPBACK}:{port}'
        made = Credential.objects.create(name='EDA', type='bearer', secret=SECRET, hosts=[host])
        subscribe(f'{host}/endpoint', Site, credential=made, max_attempts=1)
        site(name='Genève')
        assert outcome() == ('delivered', 200)
        assert line_with(process, 'seen Genève')
        made.secret = 'another'
        made.save()
        site()
        assert outcome() == ('failed', 401)


def cursor(state: Path) -> str:
    """Return its number."""
    return state.read_text().partition('.')[0] if state.exists() else ''


def test_event_driven_ansible_reads_a_feed_and_goes_on_after_its_cursor(
    tmp_path: Path, netbox_server: WebServer, api_token: str
):
    feed, state = subscribe('', Site), tmp_path / 'cursor'
    values = {
        'URL': f'{netbox_server.url}api/plugins/webhooks/webhooks/{feed.pk}/feed/',
        'TOKEN': api_token.removeprefix('Bearer '),
        'STATE': str(state),
    }
    command = rulebook(tmp_path, FEED, ','.join(values), '--source-dir', str(CHECKOUT / 'contrib'))
    for name in ('Genève', 'Bern'):
        site(name=name)
        assert outcome() == ('delivered', None)
        with started(*command, env={**os.environ, **values}, stdout=subprocess.PIPE) as process:
            assert line_with(process, 'seen ').strip().endswith(name)
            assert wait_until(lambda: cursor(state) == f'{Delivery.objects.latest("pk").position}', timeout=60)


@pytest.mark.skipif(not is_installed(), reason='scripts/receivers installs it')
def test_zabbix_keeps_changes_and_what_it_refuses_is_no_success(tmp_path: Path, stack: StackDescription):
    with zabbix(tmp_path, stack.server) as server:
        token, item = server.make_item('netbox', 'netbox.change')
        host = server.url.removesuffix('/api_jsonrpc.php')
        made = Credential.objects.create(name='Zabbix', type='bearer', secret=token, hosts=[host])
        preset = all_presets()['zabbix'].fields
        subscribe(server.url, Site, credential=made, max_attempts=5, **preset)
        site(name='Genève')
        # Zabbix reads new items after a moment. Until then it answers 200 and the delivery fails.
        assert wait_until(lambda: outcome() == ('delivered', 200) or pass_retry_waits(), timeout=60)
        wanted = {'history': 4, 'itemids': [item]}
        assert wait_until(lambda: server.call('history.get', **wanted), timeout=60, interval=0.2)
        (kept,) = server.call('history.get', **wanted)
        assert json.loads(kept['value'])['display'] == 'Genève'
        made.secret = 'another'
        made.save()
        site()
        assert outcome() == ('pending', 200)
        assert 'success_conditions' in Delivery.objects.order_by('pk').last().error


@pytest.mark.parametrize('kind', ['oauth2', 'oauth2-body'])
def test_an_oauth2_server_gives_a_token(receiver: Receiver, kind: str):
    with running('node', script('oauth2', OAUTH2)) as (port, _process):
        made = Credential(
            name='Client',
            type=kind,
            username='netbox',
            secret=SECRET,
            scope='hooks',
            hosts=[receiver.url().rstrip('/')],
            token_url=f'http://{LOOPBACK}:{port}/token',
        )
        made.full_clean()
        made.save()
        subscribe(receiver.url('/'), Site, credential=made)
        site()
        assert outcome() == ('delivered', 200)
        scheme, _space, token = receiver.requests[0].header('Authorization').partition(' ')
        assert (scheme, token.count('.')) == ('Bearer', 2)
