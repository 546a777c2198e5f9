"""Webhooks as code: documents are planned, applied whole or not at all, pruned, and written again."""

import json
import random
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from core.models import ObjectChange, ObjectType
from dcim.models import Site
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings
from extras.models import Notification, NotificationGroup, Tag
from jsonschema import Draft202012Validator
from support.builders import NOWHERE, custom_field, site, subscribe
from support.builtin import rule
from support.engine import in_thread, is_anybody_blocked, open_transaction
from support.settings import change_settings
from users.models import User

from devstack.process import wait_until
from webhooks.as_code import export
from webhooks.as_code.schema import document_schema
from webhooks.engine import sql
from webhooks.models import Credential, Event, Webhook

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/apply/'
ONE = """\
source: team
credentials:
  - name: cmdb
    type: bearer
    hosts: [cmdb.example.com]
    secret: {env: CMDB_TOKEN}
webhooks:
  - name: CMDB
    object_types: [dcim.site]
    type_create: true
    payload_url: https://cmdb.example.com/hook
    credential: cmdb
    secret: {generate: true}
    additional_headers:
      X-Team: {env: CMDB_TEAM}
"""


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    change_settings(monkeypatch, secret_variables=('CMDB_*',))


@pytest.fixture
def write(tmp_path: Path):
    def put(text: str) -> str:
        path = tmp_path / 'webhooks.yaml'
        path.write_text(text)
        return str(path)

    return put


def run(*arguments: str) -> tuple[str, int]:
    output = StringIO()
    try:
        call_command('webhooks_apply', *arguments, stdout=output)
    except SystemExit as ended:
        return output.getvalue().strip(), ended.code
    return output.getvalue().strip(), 0


def exported() -> str:
    output = StringIO()
    call_command('webhooks_export', stdout=output)
    return output.getvalue()


def limits() -> list[tuple]:
    return sql.fetch("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")


def clear() -> None:
    Webhook.objects.all().delete()
    Credential.objects.all().delete()


class TestApply:
    def test_a_plan_says_what_an_apply_does_and_changes_nothing(self, write):
        file = write(ONE)
        assert run(file, '--plan') == ('+ credentials: cmdb\n+ webhooks: CMDB', 2)
        assert not Webhook.objects.exists() and not Credential.objects.exists()
        assert run(file) == ('+ credentials: cmdb\n+ webhooks: CMDB', 0)
        webhook = Webhook.objects.get()
        assert (webhook.name, webhook.credential.name, webhook.kinds) == ('CMDB', 'cmdb', ['created'])
        assert webhook.secret.reveal().startswith('whsec_')
        assert webhook.additional_headers.reveal() == 'X-Team: env:CMDB_TEAM'
        assert (webhook.managed_by, webhook.managed_in) == ('team', f'{file}:8')
        site()
        assert Event.objects.count() == 1

    def test_the_second_apply_does_nothing(self, write, django_capture_on_commit_callbacks):
        file = write(ONE)
        run(file)
        before = Webhook.objects.values().get()
        assert run(file) == ('Nothing to do.', 0)
        assert run(file, '--plan') == ('Nothing to do.', 0)
        assert Webhook.objects.values().get() == before

    def test_a_changed_field_is_named_with_both_values(self, write):
        run(write(ONE))
        secret = Webhook.objects.get().secret.reveal()
        text = ONE.replace('type_create: true', 'type_update: true\n    timeout: 7').replace('CMDB_TEAM', 'CMDB_X')
        shown, code = run(write(text), '--plan', '--json')
        (change,) = json.loads(shown)
        assert (code, change['outcome'], change['fields']) == (
            2,
            'changed',
            {
                'type_create': [True, False],
                'type_update': [False, True],
                'timeout': [None, 7],
                'additional_headers': ['********', '********'],
            },
        )
        run(write(text))
        webhook = Webhook.objects.get()
        assert (webhook.kinds, webhook.timeout, webhook.secret.reveal()) == (['updated'], 7, secret)

    def test_a_plan_names_related_objects_as_the_document_does(self, write):
        run(write(ONE))
        Tag.objects.create(name='Core', slug='core')
        User.objects.create(username='robot')
        text = ONE.replace('[dcim.site]', '[dcim.site, dcim.rack]').replace('    credential: cmdb\n', '')
        (change,) = json.loads(
            run(write(f'{text}    tags: [core]\n    ignore_users: [robot]\n'), '--plan', '--json')[0]
        )
        assert change['fields'] == {
            'object_types': [['dcim.site'], ['dcim.rack', 'dcim.site']],
            'credential': ['cmdb', None],
            'tags': [[], ['core']],
            'ignore_users': [[], ['robot']],
        }

    @pytest.mark.parametrize('switch', ['\n    secret_path: true', ''], ids=['stays', 'ends'])
    def test_a_plan_shows_no_secret_path(self, write, switch: str):
        text = 'webhooks:\n  - name: Chat\n    type_create: true\n    payload_url: https://a.example.com/'
        run(write(f'{text}s3cr3t\n    secret_path: true'))
        (change,) = json.loads(run(write(f'{text}an0ther{switch}'), '--plan', '--json')[0])
        assert change['fields']['payload_url'] == ['https://a.example.com/********'] * 2

    def test_a_field_that_is_left_out_gets_its_default(self, write):
        subscribe(NOWHERE, Site, name='CMDB', description='by hand', paused=True, latest_only=True)
        run(write('webhooks: [{name: CMDB, type_create: true, payload_url: "https://a.example.com"}]'))
        webhook = Webhook.objects.get()
        assert (webhook.description, webhook.paused, webhook.latest_only, webhook.object_types.count()) == (
            '', False, False, 0
        )  # fmt: skip

    def test_prune_deletes_only_what_the_source_made(self, write):
        subscribe(NOWHERE, Site, name='by hand')
        other = 'source: other\nwebhooks: [{name: Other, type_create: true, payload_url: "https://a.example.com"}]'
        run(write(other))
        run(write(ONE))
        empty = write('source: team')
        assert run(empty) == ('Nothing to do.', 0)
        assert run(empty, '--prune', '--plan') == ('- webhooks: CMDB\n- credentials: cmdb', 2)
        assert run(empty, '--prune') == ('- webhooks: CMDB\n- credentials: cmdb', 0)
        assert sorted(Webhook.objects.values_list('name', flat=True)) == ['Other', 'by hand']

    def test_a_protection_rule_refuses_a_deletion(self, write, api_client):
        run(write(ONE))
        rules = {'webhooks.webhook': [{'enabled': {'eq': False}}]}
        with override_settings(PROTECTION_RULES=rules):
            with pytest.raises(CommandError, match=r'webhooks: .*protection rule'):
                run(write('source: team'), '--prune')
            answer = api_client.post(f'{API}?prune=true', {'source': 'team'}, format='json')
        assert (answer.status_code, Webhook.objects.count()) == (400, 1)
        assert 'protection rule' in answer.content.decode()

    def test_a_tag_that_is_for_other_object_types_is_refused(self, write, api_client):
        Tag.objects.create(name='Sites', slug='sites').object_types.add(ObjectType.objects.get_for_model(Site))
        text = ONE + '    tags: [sites]\n'
        with pytest.raises(CommandError, match=r'webhooks\.yaml:8: Tag Sites cannot be assigned'):
            run(write(text))
        answer = api_client.post(API, yaml.safe_load(text), format='json')
        assert (answer.status_code, [*answer.json()]) == (400, ['detail'])
        assert not Webhook.objects.exists()

    def test_two_documents_may_not_name_the_same(self, write, tmp_path):
        other = tmp_path / 'other.yaml'
        file = write(ONE)
        other.write_text('webhooks:\n  - {name: CMDB, type_update: true, payload_url: "https://a.example.com"}\n')
        with pytest.raises(CommandError, match=f'^{other}:2: name: "CMDB" is in the document twice$'):
            run(file, str(other))
        assert not Webhook.objects.exists()

    def test_two_applies_at_once_go_one_after_the_other(self, write):
        file = write(ONE)
        second: list[tuple[str, int]] = []
        with open_transaction(lambda: run(file)):
            thread = in_thread(lambda: second.append(run(file)))
            assert wait_until(is_anybody_blocked, timeout=60)
        thread.join(60)
        assert second == [('Nothing to do.', 0)]
        assert (Webhook.objects.count(), Credential.objects.count()) == (1, 1)

    def test_the_limits_of_a_filter_hold_for_no_later_entry(self, write):
        """The next entry may wait for a row, or learn a list of a million objects."""
        file = write(ONE + '    filters: {dcim.site: "status=active"}\n')
        with transaction.atomic():
            before = limits()
            run(file)
            assert limits() == before
        assert Webhook.objects.get().filters == {'dcim.site': 'status=active'}

    def test_a_document_with_a_wrong_entry_changes_nothing(self, write):
        file = write(ONE + '  - name: Wrong\n    type_create: true\n    payload_url: ftp://example.com\n')
        with pytest.raises(CommandError, match=r'webhooks\.yaml:18: payload_url: '):
            run(file)
        assert not Webhook.objects.exists() and not Credential.objects.exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ('text', 'error'),
        [
            ('webhooks: [', 'webhooks.yaml:1: not valid YAML'),
            ('webhooks: !!bool maybe', 'webhooks.yaml: not valid YAML'),
            ('webhooks: !!timestamp soon', 'webhooks.yaml: not valid YAML'),
            ('- a', 'a document must be a mapping'),
            ('source: a\nhooks: []', 'webhooks.yaml:2: hooks: a document has no such key'),
            ('source: a\nwebhooks: {a: 1}', 'webhooks.yaml:2: webhooks: enter a list'),
            ('source: a\nwebhooks: [a]', 'webhooks.yaml:2: webhooks: each entry must be a mapping'),
            ('\nsource: "a\\0"', 'webhooks.yaml:2: source: enter a text'),
            ('a: b\nb: "\0"', 'webhooks.yaml:2: not valid YAML: special characters are not allowed'),
            ('webhooks:\n  - name: "a\\0"', 'webhooks.yaml:2: name: The value contains'),
            ('webhooks:\n  - name: A\n    tags: ["a\\0"]', 'webhooks.yaml:3: tags: The value contains'),
            ('webhooks:\n  - name: A\n    tags: [{a: b}]', 'webhooks.yaml:3: tags: enter a text. Put numbers, yes and'),
            ('webhooks:\n  - name: A\n    tags: [2024]', 'webhooks.yaml:3: tags: enter a text. Put numbers, yes and'),
            ('webhooks:\n  - name: A\n    additional_headers: {X-Version: 2}',
             'webhooks.yaml:3: additional_headers: enter a text. Put numbers, yes and no in quotes'),
            ('webhooks:\n  - name: A\n    credential: 7', 'webhooks.yaml:3: credential: enter a text'),
            ('webhooks:\n  - name: A\n    secret: {file: relative}', 'webhooks.yaml:3: secret: a document holds'),
            ('webhooks:\n  - name: A\n    secret: {env: A B}', 'webhooks.yaml:3: secret: a document holds'),
            ('webhooks:\n  - enabled: true', 'webhooks.yaml:2: name: enter a name'),
            ('webhooks:\n  - name: A\n  - name: A', 'webhooks.yaml:3: name: "A" is in the document twice'),
            ('webhooks:\n  - name: A\n    payload: x', 'webhooks.yaml:3: payload: there is no such field'),
            ('webhooks:\n  - name: A\n    name: B', 'webhooks.yaml:3: not valid YAML: name stands here twice'),
            ('webhooks:\n  - name: A\n    secret: plain', 'webhooks.yaml:3: secret: a document holds no secret'),
            ('webhooks:\n  - name: A\n    secret: {env: HOME}\n    type_create: true\n    payload_url: https://a.example.com',
             'webhooks.yaml:3: secret: The settings do not allow this reference'),
            ('webhooks:\n  - name: A\n    type_create: true\n    timeout: soon', 'webhooks.yaml:4: timeout: '),
            ('webhooks:\n  - name: A\n    type_create: true\n    credential: none', 'webhooks.yaml:4: credential: '),
            ('webhooks:\n  - name: A\n    credential: {1: a}', 'webhooks.yaml:3: credential: '),
            ('webhooks:\n  - name: A\n    custom_fields: {n: .nan}', 'webhooks.yaml:3: custom_fields: The value'),
            ('webhooks:\n  - name: A\n    type_create: true\n    tags: [none]', 'webhooks.yaml:4: tags: '),
            ('webhooks:\n  - name: A\n    type_create: true\n    object_types: [dcim.nothing]',
             'webhooks.yaml:4: object_types: '),
            ('webhooks:\n  - name: A\n    type_create: true\n    additional_headers: {X-A: "********"}',
             'webhooks.yaml:4: additional_headers: X-A has no stored value'),
            ('credentials:\n  - name: a\n    type: bearer\n    secret: {generate: true}', 'webhooks.yaml:4: secret: '),
            ('credentials:\n  - name: a\n    type: bearer', 'webhooks.yaml:2: hosts: This field is required'),
            ('credentials:\n  - name: a\n    hosts: [a.example.com]', 'webhooks.yaml:2: type: This field is required'),
        ],
    )  # fmt: skip
    def test_line_and_field_are_named(self, write, text: str, error: str):
        with pytest.raises(CommandError) as refused:
            run(write(text))
        assert error in str(refused.value)
        assert not Webhook.objects.exists()

    def test_what_netbox_would_store_otherwise_is_no_change(self, write):
        text = ONE.replace('name: CMDB', 'name: " CMDB "').replace('[dcim.site]', '[dcim.site, dcim.site]')
        run(write(text))
        assert run(write(text)) == ('Nothing to do.', 0)

    def test_dates_of_yaml_are_no_change(self, write):
        custom_field(Webhook, 'reviewed', 'date')
        file = write(ONE + '    custom_fields: {reviewed: 2026-01-31}\n')
        run(file)
        assert Webhook.objects.get().custom_field_data == {'reviewed': '2026-01-31'}
        assert run(file) == ('Nothing to do.', 0)
        assert run(write(exported())) == ('Nothing to do.', 0)
        changed = run(write(ONE + '    custom_fields: {reviewed: 2026-02-28}\n'))[0]
        assert changed.splitlines()[1] == "    custom_fields: {'reviewed': '2026-01-31'} → {'reviewed': '2026-02-28'}"

    def test_custom_fields_may_name_objects_and_have_any_keys(self, write):
        places = [site().pk, site().pk]
        values = {'place': places[0], 'places': places, 'more': {'1': {'2026-01-31': 'a'}}}
        custom_field(Webhook, 'place', 'object', related_object_type=ObjectType.objects.get_for_model(Site))
        custom_field(Webhook, 'places', 'multiobject', related_object_type=ObjectType.objects.get_for_model(Site))
        custom_field(Webhook, 'more', 'json')
        given = f'{{place: {places[0]}, places: {places}, more: {{1: {{2026-01-31: a}}}}}}'
        file = write(f'{ONE}    custom_fields: {given}\n')
        run(file)
        assert Webhook.objects.get().custom_field_data == values
        assert run(file) == run(write(exported())) == ('Nothing to do.', 0)

    def test_secrets_that_no_key_decrypts_are_replaced(self, write, monkeypatch):
        """As in a copy of the database for a NetBox with other keys."""
        run(write(ONE))
        change_settings(monkeypatch, encryption_keys=('k' * 40,))
        file = write(ONE.replace('{generate: true}', '{env: CMDB_SECRET}'))
        assert run(file)[0].splitlines() == [
            '~ credentials: cmdb',
            "    secret: '********' → '********'",
            '~ webhooks: CMDB',
            "    secret: '********' → '********'",
            "    additional_headers: '********' → '********'",
        ]
        assert run(file) == ('Nothing to do.', 0)

    @pytest.mark.parametrize('text', ['\U0001f600', 'a\x7f\x85b\u2028c'])
    @pytest.mark.parametrize('escaped', [True, False], ids=['escaped', 'raw'])
    def test_json_with_tabs_a_byte_order_mark_and_any_character_is_read(self, write, text: str, escaped: bool):
        document = yaml.safe_load(ONE)
        document['webhooks'][0]['description'] = text
        file = write('\ufeff' + json.dumps(document, indent='\t', ensure_ascii=escaped))
        run(file)
        assert (Webhook.objects.get().description, run(file)) == (text, ('Nothing to do.', 0))

    def test_a_long_path_keeps_its_end(self, write, tmp_path):
        folder = tmp_path.joinpath('a' * 200, 'b' * 200, 'c' * 200)
        folder.mkdir(parents=True)
        run(str(shutil.copy(write(ONE), folder)))
        assert Webhook.objects.get().managed_in.endswith('c/webhooks.yaml:8')


def some_definitions(seed: int) -> None:
    """Make a few credentials and webhooks with options by chance."""
    chance = random.Random(seed)
    Tag.objects.get_or_create(name='Core', slug='core')
    NotificationGroup.objects.get_or_create(name='Admins')
    User.objects.get_or_create(username='robot')
    for number in range(chance.randint(1, 3)):
        credential = Credential(
            name=f'credential {number}',
            type=chance.choice(['bearer', 'header']),
            header='X-Key',
            hosts=['a.example.com', 'b.example.com:8443'],
            secret='env:CMDB_TOKEN',
            description=chance.choice(['', 'für “alle”']),
        )
        credential.full_clean()
        credential.save()
    for number in range(chance.randint(1, 6)):
        webhook = subscribe(
            'https://a.example.com/hook', Site, name=f'webhook {number}', **chance.choice([{}, {'enabled': False}]),
            **chance.choice([{}, {'conditions': {'attr': 'status.value', 'value': 'active'}}]),
            **chance.choice([{}, {'fields': {'dcim.site': ['id', 'name']}}, {'omit': {'dcim.site': ['tenant']}}]),
            **chance.choice([{}, {'quiet': 5, 'quiet_max': 50}, {'change_set': True}, {'latest_only': True}]),
            **chance.choice([{}, {'secret': 'whsec_' + 32 * 'A'}, {'secret': 'env:CMDB_SECRET'}]),
            **chance.choice([{}, {'body_template': '{{ event }}\n  x: "y"\n'}, {'body_template': 'a\x85b\u2028c\r\n'}]),
            **chance.choice([{}, {'additional_headers': 'X-A: env:CMDB_A'}]),
            **chance.choice([{}, {'timeout': 7, 'rate_limit': 3, 'concurrency': 2, 'max_attempts': 1}]),
            **chance.choice([{}, {'credential': Credential.objects.first()}]),
            **chance.choice([{}, {'expand': ['region'], 'only_if_changed': ['status']}]),
        )  # fmt: skip
        webhook.tags.set(chance.choice([[], [Tag.objects.get()]]))
        webhook.ignore_users.set(chance.choice([[], [User.objects.get(username='robot')]]))
        webhook.notification_groups.set(chance.choice([[], [NotificationGroup.objects.get()]]))


class TestExport:
    def test_sets_of_definitions_survive_export_and_apply(self, write, pytestconfig: pytest.Config):
        for seed in range(30 if pytestconfig.getoption('--long') else 5):
            some_definitions(seed)
            document = exported()
            Draft202012Validator(document_schema()).validate(yaml.safe_load(document))
            clear()
            run(write(document))
            assert exported() == document, seed
            assert run(write(document)) == ('Nothing to do.', 0), seed
            clear()

    def test_headers_that_a_form_stored_are_no_change(self, write):
        subscribe(NOWHERE, Site, additional_headers='X-B:2\r\nX-A: 1\r\n')
        assert run(write(exported())) == ('Nothing to do.', 0)
        assert Webhook.objects.get().additional_headers.reveal() == 'X-B:2\r\nX-A: 1\r\n'

    def test_a_name_that_a_bulk_rename_shortened_is_found_again(self, write, admin_pages):
        """A second webhook would send everything twice."""
        renamed = subscribe(NOWHERE, Site, name='CMDB (old)')
        entered = {'pk': renamed.pk, 'find': '(old)', 'replace': '', '_apply': '1'}
        assert admin_pages.post('/plugins/webhooks/webhooks/rename/', entered).status_code == 302
        assert run(write(exported())) == ('Nothing to do.', 0)
        assert Webhook.objects.get().name == 'CMDB'

    def test_no_secret_is_exported(self):
        subscribe(NOWHERE, Site, secret='plain secret', additional_headers='X-A: value of the header')
        text = exported()
        assert 'plain secret' not in text and 'value of' not in text
        (entry,) = yaml.safe_load(text)['webhooks']
        assert (entry['secret'], entry['additional_headers']) == ({'generate': True}, {'X-A': '********'})


def test_pages_and_filters_name_the_document(write, admin_pages, api_client):
    subscribe(NOWHERE, Site, name='by hand')
    file = write(ONE)
    run(file)
    webhook = Webhook.objects.get(name='CMDB')
    for page in (webhook.get_absolute_url(), f'{webhook.get_absolute_url()}edit/'):
        assert f'It is defined in {file}:8.' in admin_pages.get(page).content.decode()
    credential = Credential.objects.get()
    for page in (credential.get_absolute_url(), f'{credential.get_absolute_url()}edit/'):
        assert f'It is defined in {file}:3.' in admin_pages.get(page).content.decode()
    shown = [admin_pages.get('/plugins/webhooks/credentials/', {'managed_by': one}) for one in ('team', 'other')]
    assert [credential.get_absolute_url() in one.content.decode() for one in shown] == [True, False]
    found = api_client.get('/api/plugins/webhooks/webhooks/', {'managed_by': 'team'}).json()['results']
    assert [(one['name'], one['managed_by'], one['managed_in']) for one in found] == [('CMDB', 'team', f'{file}:8')]


def test_a_credential_that_is_created_by_rest_serves_its_host(api_client):
    sent = {'name': 'a', 'type': 'bearer', 'hosts': ['A.example.com:443/'], 'secret': 'x'}
    answer = api_client.post('/api/plugins/webhooks/credentials/', sent, format='json')
    assert (answer.status_code, answer.json()['hosts']) == (201, ['https://a.example.com'])


class TestRest:
    def post(self, client: Any, document: Any, **asked: str) -> Any:
        query = '&'.join(f'{name}={value}' for name, value in asked.items())
        return client.post(f'{API}?{query}', document, format='json')

    def test_it_plans_and_applies(self, api_client):
        document = yaml.safe_load(ONE)
        planned = self.post(api_client, document, plan='true').json()
        assert (planned['changed'], Webhook.objects.count(), ObjectChange.objects.count()) == (True, 0, 0)
        assert self.post(api_client, document).json() == planned
        count = ObjectChange.objects.count()
        assert count
        assert self.post(api_client, document).json() == {'changed': False, 'changes': []}
        assert ObjectChange.objects.count() == count

    def test_a_request_without_a_document_deletes_nothing(self, api_client):
        api_client.post(API, {**yaml.safe_load(ONE), 'source': 'netbox'}, format='json')
        answer = api_client.post(f'{API}?prune=true')
        assert (answer.status_code, Webhook.objects.count(), Credential.objects.count()) == (400, 1, 1)
        assert 'must be a mapping' in answer.content.decode()
        assert api_client.post(f'{API}?prune=true', {'source': 'netbox'}, format='json').json()['changed']

    def test_the_change_log_shows_what_an_apply_has_changed(self, api_client):
        document = yaml.safe_load(ONE)
        self.post(api_client, document)
        document['webhooks'][0]['timeout'], document['credentials'][0]['description'] = 7, 'new'
        self.post(api_client, document)
        logged = {one.changed_object_type.model: one for one in ObjectChange.objects.filter(action='update')}
        webhook, credential = logged['webhook'], logged['credential']
        assert (webhook.prechange_data['timeout'], webhook.postchange_data['timeout']) == (None, 7)
        assert (credential.prechange_data['description'], credential.postchange_data['description']) == ('', 'new')

    def test_event_rules_hear_of_nothing_that_is_undone(self, api_client, netbox_user):
        group = NotificationGroup.objects.create(name='Admins')
        group.users.add(netbox_user)
        rule(group, Webhook, action_type='notification')
        document = yaml.safe_load(ONE)
        wrong = {'webhooks': [*document['webhooks'], {'name': 'B', 'payload_url': 'ftp://b', 'type_create': True}]}
        refused = [self.post(api_client, document | wrong, plan=plan).status_code for plan in ('true', 'false')]
        assert refused == [400, 400] and not Notification.objects.exists()
        assert self.post(api_client, document).status_code == 200 and Notification.objects.exists()

    @pytest.mark.parametrize('levels', [1_500, 200_000])
    def test_json_that_is_nested_too_deeply_is_refused(self, api_client, levels: int):
        document = f'{{"webhooks": [{{"name": "A", "conditions": {"[" * levels}{"]" * levels}}}]}}'
        assert api_client.post(API, document, content_type='application/json').status_code == 400

    @pytest.mark.parametrize('wrong', [{'tags': [{}]}, {'tags': ['\0']}, {'name': 'a\0'}, {'credential': '\0'}])
    def test_a_wrong_value_is_refused(self, api_client, wrong):
        entry = {'name': 'A', 'payload_url': 'https://a.example.com', 'type_create': True, **wrong}
        answer = self.post(api_client, {'webhooks': [entry]})
        assert (answer.status_code, [*answer.json()]) == (400, [*wrong])

    def test_a_refusal_names_the_entry_and_the_field(self, api_client):
        answer = self.post(api_client, {'webhooks': [{'name': 'A', 'payload_url': 'ftp://a', 'type_create': True}]})
        assert (answer.status_code, [*answer.json()]) == (400, ['payload_url'])
        assert answer.json()['payload_url'][0].startswith('webhooks "A": ')

    def test_each_object_needs_the_permission_of_its_user(self, clerk_api, grant):
        document = {'webhooks': [{'name': 'pub', 'payload_url': 'https://a.example.com', 'type_create': True}]}
        assert self.post(clerk_api, document).status_code == 403
        grant(Webhook, 'view', 'add', name='pub')
        assert self.post(clerk_api, document).status_code == 200
        document['webhooks'][0]['timeout'] = 5
        assert self.post(clerk_api, document).status_code == 403
        grant(Webhook, 'change', name='pub')
        assert self.post(clerk_api, document).status_code == 200
        assert self.post(clerk_api, {'source': 'netbox'}, prune='true').status_code == 403
        document['webhooks'][0]['name'] = 'other'
        assert self.post(clerk_api, document).status_code == 403
        assert [one.name for one in Webhook.objects.all()] == ['pub']

    def test_a_prune_names_nothing_that_its_user_may_not_view(self, api_client, clerk_api, grant):
        document = {'webhooks': [{'name': 'hidden', 'payload_url': 'https://a.example.com', 'type_create': True}]}
        assert self.post(api_client, document).status_code == 200
        for is_shown in (False, True):
            answer = self.post(clerk_api, {'source': 'netbox'}, prune='true')
            assert (answer.status_code, 'hidden' in answer.json()['detail']) == (403, is_shown)
            grant(Webhook, 'view')


def test_every_field_of_a_webhook_is_in_the_document():
    webhook = subscribe(NOWHERE, Site)
    assert {'name', 'object_types', 'payload_url'} <= export.entry_of(webhook).keys()
