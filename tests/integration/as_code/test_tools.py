"""What the docs give to Ansible and Terraform."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.docs import block
from support.settings import change_settings

from webhooks.models import Webhook

WEBHOOKS = 'webhooks: [{name: CMDB, type_create: true, payload_url: "https://cmdb.example.com"}]'


@pytest.fixture
def program() -> Path:
    path = Path(os.environ.get('RECEIVERS', '/nowhere')) / 'eda/bin/ansible-playbook'
    if not path.exists():
        pytest.skip('scripts/receivers installs it')
    return path


@pytest.fixture
def play(program: Path, netbox_server: Any, api_token: str, tmp_path: Path):
    """Run the task, and return what Ansible counts: {'ok': 1, 'changed': 0, …}."""
    tasks = yaml.safe_load(block('as-code.md', 'yaml', 'ansible.builtin.uri'))
    uri = tasks[0]['ansible.builtin.uri']
    uri['url'] = uri['url'].replace('https://netbox.example.com/', netbox_server.url)
    path = tmp_path / 'play.yml'
    path.write_text(yaml.safe_dump([{'hosts': 'localhost', 'gather_facts': False, 'tasks': tasks}]))
    (tmp_path / 'webhooks.yaml').write_text(WEBHOOKS)

    def run(*options: str) -> dict[str, int]:
        token = f'netbox_token={api_token.partition(" ")[2]}'
        command = [str(program), '-i', 'localhost,', '-c', 'local', '-e', token, *options, str(path)]
        environment = {**os.environ, 'HOME': str(tmp_path), 'ANSIBLE_NOCOLOR': '1', 'LC_ALL': 'C.UTF-8'}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        print(done.stdout, done.stderr)
        recap = done.stdout.rpartition('localhost')[2].partition(':')[2]
        return {name: int(number) for name, number in (one.split('=') for one in recap.split())} | {
            'code': done.returncode
        }

    return run


def test_ansibles_task_is_changed_once_then_ok_and_a_check_only_plans(play):
    def told(*options: str) -> tuple[int, int, int]:
        found = play(*options)
        return found['code'], found['ok'], found['changed']

    assert told('--check') == (0, 1, 1)
    assert not Webhook.objects.exists()
    assert told() == (0, 1, 1)
    assert Webhook.objects.get().name == 'CMDB'
    assert told() == told('--check') == (0, 1, 0)


def test_the_requests_that_terraforms_resource_makes_are_answered(api_client, db, monkeypatch):
    change_settings(monkeypatch, secret_folders=(Path('/run/secrets'),))
    text = block('as-code.md', 'hcl', 'restapi_object')
    address = dict(re.findall(r'(\w+)_path +=\s"(.*)"', text))
    (fields,) = re.findall(r'jsonencode\((\{.*?\n  \})', text, re.DOTALL)
    data = json.loads(re.sub(r'(?m)^ +(\w+) += (.*[^{])$', r'"\1": \2,', fields).replace(',\n  }', '}'))
    created = api_client.post(address['create'], data, format='json')
    assert created.status_code == 201, created.content
    one = {name: path.replace('{id}', str(created.json()['id'])) for name, path in address.items()}
    assert api_client.get(one['read']).json()['name'] == data['name']
    assert api_client.patch(one['update'], data, format='json').status_code == 200
    assert Webhook.objects.get().secret.reveal() == data['secret']
    assert api_client.delete(one['destroy']).status_code == 204
