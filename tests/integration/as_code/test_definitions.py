"""Definitions: a file of a NetBox data source is planned on a page, and applied by a job."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from core.choices import JobStatusChoices
from core.jobs import SyncDataSourceJob
from core.models import DataSource, Job, ObjectChange, ObjectType
from dcim.models import Site
from django_rq import get_queue
from support.builders import custom_field, site
from support.builtin import builtin_rule
from users.models import User

from devstack.process import wait_until
from webhooks.as_code.definitions import DefinitionJob
from webhooks.models import Credential, Definition, Webhook

pytestmark = pytest.mark.usefixtures('committed')

ONE = """\
source: team
webhooks:
  - name: CMDB
    object_types: [dcim.site]
    type_create: true
    payload_url: https://cmdb.example.com/hook
"""
EMPTY = 'source: team\n'
RIGHTS = ('add', 'change')
API = '/api/plugins/webhooks/definitions/'


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    (tmp_path / 'netbox').mkdir()
    return DataSource.objects.create(name='infra', type='local', source_url=str(tmp_path))


@pytest.fixture
def write(source: DataSource):
    def put(text: str) -> None:
        (Path(source.source_url) / 'netbox' / 'webhooks.yaml').write_text(text)
        DataSource.objects.get(pk=source.pk).sync()

    return put


def definition(source: DataSource, user: User | None, **fields: Any) -> Definition:
    made = Definition(**{
        'name': 'Webhooks', 'data_source': source, 'path': 'netbox/webhooks.yaml', 'applied_by': user, **fields
    })  # fmt: skip
    made.full_clean()
    made.save()
    return made


def applied(made: Definition, user: User | None) -> Job:
    """Apply it in this process, and return the job."""
    job = DefinitionJob.enqueue(instance=made, user=user, immediate=True)
    return Job.objects.get(pk=job.pk)


def log_of(job: Job) -> list[str]:
    return [entry['message'] for entry in job.log_entries]


def test_a_sync_applies_the_file_in_a_worker_and_brings_back_what_was_deleted(
    netbox_user, source, write, admin_pages, rqworker
):
    (Path(source.source_url) / 'netbox' / 'webhooks.yaml').write_text(ONE)
    made = definition(source, netbox_user, apply_on_sync=True)
    rqworker('default')
    for times in (1, 2):
        SyncDataSourceJob.enqueue(instance=source, user=netbox_user)
        assert wait_until(lambda: Webhook.objects.filter(name='CMDB').exists(), timeout=60)
        done = made.jobs.filter(status=JobStatusChoices.STATUS_COMPLETED)
        assert wait_until(lambda times=times, done=done: done.count() == times, timeout=60)
        webhook = Webhook.objects.get()
        assert (webhook.managed_by, webhook.managed_in) == ('team', 'infra: netbox/webhooks.yaml:3')
        webhook.delete()
    change = ObjectChange.objects.filter(changed_object_type__model='webhook', action='create').first()
    assert change.user == netbox_user
    assert all(log_of(job) == ['+ webhooks: CMDB'] for job in made.jobs.all())
    assert 'Last job' in admin_pages.get(made.get_absolute_url()).content.decode()


def test_a_job_applies_custom_fields_that_name_objects(netbox_user, source, write):
    place = site()
    custom_field(Webhook, 'place', 'object', related_object_type=ObjectType.objects.get_for_model(Site))
    write(f'{ONE}    custom_fields: {{place: {place.pk}}}\n')
    assert log_of(applied(definition(source, netbox_user), netbox_user)) == ['+ webhooks: CMDB']
    assert Webhook.objects.get().custom_field_data == {'place': place.pk}


def test_a_file_of_a_data_source_may_have_a_byte_order_mark_and_tabs_as_json(netbox_user, source, write):
    write('\ufeff' + json.dumps(yaml.safe_load(ONE), indent='\t'))
    assert log_of(applied(definition(source, netbox_user), netbox_user)) == ['+ webhooks: CMDB']


def test_event_rules_send_what_a_job_changes_by_netboxs_own_webhooks(netbox_user, source, write):
    builtin_rule(Webhook)
    write(ONE)
    job = applied(definition(source, netbox_user), netbox_user)
    assert (job.status, job.error, log_of(job)) == ('completed', '', ['+ webhooks: CMDB'])
    sent = [one.kwargs for one in get_queue('default').jobs if one.func_name == 'extras.webhooks.send_webhook']
    assert [one['data']['name'] for one in sent] == ['CMDB']


def test_a_change_log_message_that_cannot_be_stored_is_refused_by_its_name(netbox_user, source, api_client):
    address = f'{API}{definition(source, netbox_user).pk}/'
    for message in ('a' * 201, 'a\0b'):
        answer = api_client.patch(address, {'changelog_message': message}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['changelog_message'])


def test_a_list_in_place_of_one_definition_is_refused(netbox_user, source, api_client):
    address = f'{API}{definition(source, netbox_user).pk}/'
    for call in (api_client.put, api_client.patch):
        assert call(address, [], format='json').status_code == 400


def test_a_sync_leaves_alone_what_is_applied_by_a_button_only(netbox_user, source, write):
    made = definition(source, netbox_user)
    write(ONE)
    assert not made.jobs.exists()
    Definition.objects.update(apply_on_sync=True)
    write(ONE)
    assert made.jobs.count() == 1


class TestPage:
    def shown(self, pages: Any, made: Definition) -> str:
        return pages.get(made.get_absolute_url(), {'plan': 'true'}).content.decode()

    def test_it_shows_the_plan_and_the_button_applies_it(self, netbox_user, source, write, admin_pages):
        made = definition(source, netbox_user, prune=True)
        write(ONE)
        page = self.shown(admin_pages, made)
        assert '<th scope="row">Create</th>' in page and 'CMDB' in page
        assert not Webhook.objects.exists() and not ObjectChange.objects.exists()
        answer = admin_pages.post(f'{made.get_absolute_url()}apply/')
        assert answer.status_code == 302 and made.jobs.get().user == netbox_user
        assert log_of(applied(made, netbox_user)) == ['+ webhooks: CMDB']
        assert 'Nothing to do.' in self.shown(admin_pages, made)
        write(ONE.replace('type_create', 'type_update'))
        page = self.shown(admin_pages, made)
        assert '<th scope="row">Change</th>' in page and 'type_update' in page
        write(EMPTY)
        assert '<th scope="row">Delete</th>' in self.shown(admin_pages, made)
        assert log_of(applied(made, netbox_user)) == ['- webhooks: CMDB']
        assert not Webhook.objects.exists()

    def test_it_plans_only_if_somebody_asks(self, netbox_user, source, write, admin_pages):
        made = definition(source, netbox_user)
        write(ONE)
        page = admin_pages.get(made.get_absolute_url()).content.decode()
        assert 'href="?plan=true"' in page and 'CMDB' not in page

    def test_it_shows_an_error_with_file_line_and_field(self, netbox_user, source, write, admin_pages):
        made = definition(source, netbox_user)
        error = 'infra: netbox/webhooks.yaml'
        assert f'{error}: the data source has no such file' in self.shown(admin_pages, made)
        write(ONE + '    timeout: soon\n')
        assert f'{error}:7: timeout: ' in self.shown(admin_pages, made)
        job = applied(made, netbox_user)
        assert (job.status, log_of(job)) == ('failed', [job.error]) and job.error.startswith(f'{error}:7: timeout: ')
        write('a: &a [1, 1]\nb: [*a, *a]')
        assert f'{error}:2: not valid YAML: aliases are not supported' in self.shown(admin_pages, made)
        write('')
        assert f'{error}: the file is empty' in self.shown(admin_pages, made)

    def test_it_says_what_apply_on_sync_means(self, netbox_user, source, write, admin_pages):
        made = definition(source, netbox_user)
        write(ONE)
        meaning = 'Anyone who can write to the file can change these webhooks and credentials.'
        assert meaning not in self.shown(admin_pages, made)
        Definition.objects.update(apply_on_sync=True)
        page = self.shown(admin_pages, made)
        assert meaning in page and f'with the permissions of {netbox_user}' in page


class TestPermissions:
    FORM = {'name': 'Webhooks', 'path': 'netbox/webhooks.yaml'}

    def test_a_user_who_may_only_write_definitions_and_sources_gains_nothing(
        self, clerk_pages, clerk_api, clerk_user, grant, netbox_user, source, write
    ):
        made = definition(source, netbox_user)
        write(ONE)
        grant(DataSource, 'view', 'add', 'change', 'sync')
        grant(Definition, 'view', 'add', 'change')
        sent = {**self.FORM, 'name': 'Mine', 'data_source': source.pk}
        answer = clerk_pages.post('/plugins/webhooks/definitions/add/', sent)
        assert 'You need these permissions: webhooks.add_webhook, ' in answer.content.decode()
        assert clerk_api.post(API, sent, format='json').status_code == 400
        assert clerk_api.patch(f'{API}{made.pk}/', {'apply_on_sync': True}, format='json').status_code == 400
        assert clerk_api.post(f'{API}{made.pk}/apply/').status_code == 403
        assert clerk_pages.post(f'{made.get_absolute_url()}apply/').status_code == 403
        page = clerk_pages.get(made.get_absolute_url(), {'plan': 'true'}).content.decode()
        assert 'You need these permissions' in page and 'CMDB' not in page
        assert (Definition.objects.count(), Job.objects.count()) == (1, 0)

    def test_a_definition_has_the_permissions_of_its_last_editor_and_prune_needs_more(
        self, clerk_api, clerk_user, grant, source
    ):
        grant(Definition, 'view', 'add', 'change')
        grant(Webhook, 'view', *RIGHTS)
        grant(Credential, 'view', *RIGHTS)
        sent = {**self.FORM, 'data_source': source.pk}
        assert 'data_source' in clerk_api.post(API, sent, format='json').json()
        grant(DataSource, 'view')
        answer = clerk_api.post(API, sent, format='json')
        assert (answer.status_code, answer.json()['applied_by']['username']) == (201, 'clerk')
        assert clerk_api.patch(answer.json()['url'], {'prune': True}, format='json').status_code == 400
        grant(Webhook, 'delete')
        grant(Credential, 'delete')
        assert clerk_api.patch(answer.json()['url'], {'prune': True}, format='json').status_code == 200

    def test_each_object_needs_the_permission_of_the_jobs_user(self, clerk_api, clerk_user, grant, source, write):
        grant(Definition, 'view', 'change')
        grant(DataSource, 'view')
        grant(Webhook, 'view', *RIGHTS, name='pub')
        grant(Credential, 'view', *RIGHTS)
        made = definition(source, clerk_user)
        write(ONE)
        answer = clerk_api.post(f'{API}{made.pk}/apply/')
        assert (answer.status_code, answer.json()['user']['username']) == (201, 'clerk')
        job = applied(made, clerk_user)
        assert (job.status, log_of(job)) == ('failed', ['infra: netbox/webhooks.yaml:3: you may not add "CMDB".'])
        write(ONE.replace('CMDB', 'pub'))
        assert log_of(applied(made, clerk_user)) == ['+ webhooks: pub']
        assert [one.name for one in Webhook.objects.all()] == ['pub']

    @pytest.mark.parametrize('gone', ['inactive', 'deleted'])
    def test_nothing_is_applied_for_a_user_who_is(self, gone: str, netbox_user, source, write):
        user = User.objects.create_user(username='former', is_superuser=True)
        made = definition(source, user, apply_on_sync=True)
        if gone == 'deleted':
            user.delete()
        else:
            User.objects.filter(pk=user.pk).update(is_active=False)
        write(ONE)
        made = Definition.objects.get()
        assert made.jobs.get().user == made.applied_by
        job = applied(made, made.applied_by)
        reason = 'The user who last saved the definition is deleted or inactive. Save it again.'
        assert (job.status, log_of(job)) == ('failed', [reason])
        assert not Webhook.objects.exists()


def test_a_form_saves_it_and_the_list_finds_it(netbox_user, admin_pages, source):
    sent = {'name': 'Webhooks', 'path': 'netbox/webhooks.yaml', 'data_source': source.pk, 'apply_on_sync': 'on'}
    assert admin_pages.post('/plugins/webhooks/definitions/add/', sent).status_code == 302
    made = Definition.objects.get()
    assert (made.applied_by, made.apply_on_sync, made.prune) == (netbox_user, True, False)
    for query in ({'q': 'webhooks.yaml'}, {'data_source': 'infra'}, {'apply_on_sync': 'true'}):
        page = admin_pages.get('/plugins/webhooks/definitions/', query).content.decode()
        assert made.get_absolute_url() in page, query
    page = admin_pages.get('/plugins/webhooks/definitions/', {'q': 'other'}).content.decode()
    assert made.get_absolute_url() not in page
