"""Presets fit the services' published schemas. `scripts/receivers` installs these and runs the tests."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dcim.models import Site
from support.builders import site, subscribe
from support.engine import work

from devstack.receiver import Receiver
from webhooks.presets import all_presets

pytestmark = [pytest.mark.usefixtures('committed'), pytest.mark.long]

HARMFUL = '<!channel> & [link](https://evil.example.com) *x* {{ 7 * 7 }} "quoted" \\ \u2028'
# Uses the card authors' own library, and prints complaints and the parsed card.
READ_CARD = """
const { AdaptiveCard, SerializationContext } = require(process.argv[1])
const context = new SerializationContext()
const card = new AdaptiveCard()
card.parse(JSON.parse(process.argv[2]), context)
const said = [...Array(context.eventCount).keys()].map((index) => context.getEventAt(index).message)
const wrong = card.validateProperties().validationEvents.map((event) => event.message)
console.log(JSON.stringify({ complaints: [...said, ...wrong], card: card.toJSON() }))
"""


# The types that the services publish for their messages: an import, and the type of what we send.
TYPES = {
    'discord': (
        "import type { RESTPostAPIWebhookWithTokenJSONBody as Message } from 'discord-api-types/v10'",
        'Message',
    ),
    'googlechat': ("import type { chat_v1 } from '@googleapis/chat'", 'chat_v1.Schema$Message'),
    'slack': ("import type { KnownBlock } from '@slack/types'", '{ text: string; blocks: KnownBlock[] }'),
}


def installed(name: str) -> Path:
    path = Path(os.environ.get('RECEIVERS', '/nowhere'), 'node_modules', name)
    if not path.exists():
        pytest.skip('scripts/receivers installs it')
    return path


def sent(receiver: Receiver, preset: str) -> Any:
    subscribe(receiver.url('/'), Site, **all_presets()[preset].fields)
    site(name=HARMFUL, slug='x')
    work()
    (request,) = receiver.requests
    return request.json()


def test_github_takes_it(receiver: Receiver):
    description = json.loads(installed('@octokit/openapi/generated/api.github.com.deref.json').read_text())
    operation = description['paths']['/repos/{owner}/{repo}/dispatches']['post']
    schema = operation['requestBody']['content']['application/json']['schema']
    jsonschema.validate(sent(receiver, 'github'), schema)
    assert {'204', '404', '422'} <= operation['responses'].keys()


def test_teams_shows_the_card(receiver: Receiver, tmp_path: Path):
    # The package declares a module, but contains CommonJS.
    library = tmp_path / 'adaptivecards.cjs'
    library.write_text(installed('adaptivecards/dist/adaptivecards.js').read_text())
    card = sent(receiver, 'teams')['attachments'][0]['content']
    command = ('node', '-e', READ_CARD, str(library), json.dumps(card))
    read = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert read == {'complaints': [], 'card': card}


@pytest.mark.parametrize('preset', TYPES)
def test_a_chat_knows_the_message(receiver: Receiver, preset: str):
    compiler, path = installed('typescript/bin/tsc'), installed('.').parent / f'{preset}.ts'
    origin, shape = TYPES[preset]
    path.write_text(f'{origin}\nexport const sent: {shape} = {json.dumps(sent(receiver, preset))}')
    command = ('node', compiler, '--noEmit', '--strict', '--skipLibCheck', path)
    read = subprocess.run(command, check=False, capture_output=True, text=True)
    assert read.returncode == 0, read.stdout
