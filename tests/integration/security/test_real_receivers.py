"""Receivers that others wrote take what is sent. `scripts/receivers` installs them, and runs this."""

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
from support.builders import site, subscribe
from support.engine import work

from devstack.ports import LOOPBACK, accepts, free_port
from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.models import Credential, Delivery

pytestmark = [pytest.mark.usefixtures('committed'), pytest.mark.long]

SECRET = 's3cret of ours'
SIGNED = 'X-Hub-Signature-256: sha256={{ hmac() }}'
# Verifies as GitHub's own library does, and keeps the last delivery.
OCTOKIT = """
import { createServer } from 'node:http'
import { Webhooks, createNodeMiddleware } from '@octokit/webhooks'
const webhooks = new Webhooks({ secret: process.env.SECRET })
webhooks.onAny(({ id, name, payload }) => console.log(JSON.stringify({ id, name, display: payload.data.display })))
createServer(createNodeMiddleware(webhooks, { path: '/' })).listen(Number(process.env.PORT), '127.0.0.1')
"""
OAUTH2 = """
import { OAuth2Server } from 'oauth2-mock-server'
const server = new OAuth2Server()
await server.issuer.keys.generate('RS256')
await server.start(Number(process.env.PORT), '127.0.0.1')
"""


@contextmanager
def running(*command: str, **options: Any) -> Iterator[tuple[int, subprocess.Popen]]:
    """Run a program that listens on the port that $PORT names."""
    port = free_port()
    environment = {**os.environ, 'PORT': str(port), 'SECRET': SECRET}
    command = tuple(part.replace('$PORT', str(port)) for part in command)
    with subprocess.Popen(command, env=environment, text=True, **options) as process:
        try:
            assert wait_until(lambda: accepts(port), timeout=60)
            yield port, process
        finally:
            process.kill()


def script(name: str, code: str) -> str:
    folder = os.environ.get('RECEIVERS')
    if not folder or not shutil.which('node'):
        pytest.skip('scripts/receivers installs it')
    path = Path(folder) / f'{name}.mjs'
    path.write_text(code)
    return str(path)


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
        # Debian's 2.8 says 500 where a signature is wrong.
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
