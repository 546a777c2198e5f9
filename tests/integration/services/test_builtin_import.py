from io import StringIO
from typing import Any

import pytest
from core.events import OBJECT_CREATED, OBJECT_DELETED
from core.models import ObjectChange, ObjectType
from dcim.models import Location, Rack, Site
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from extras.models import CustomField, EventRule
from support.builders import NOWHERE, site, subscribe
from support.builtin import builtin_rule
from support.engine import work
from support.settings import change_settings
from users.models import User

from devstack.receiver import Receiver
from webhooks.models import Webhook
from webhooks.models.fields import Sealed
from webhooks.presentation.fields import NAMES
from webhooks.services import builtin_import
from webhooks.services.builtin_import import COMPARED_FIELDS, FLAGS, FREE_FIELDS

pytestmark = pytest.mark.usefixtures('committed')


def run(*options: str) -> str:
    output = StringIO()
    call_command('webhooks_import', *options, stdout=output)
    return output.getvalue()


def state() -> list[dict[str, Any]]:
    """Return all rows that an import may write."""
    return [
        *Webhook.objects.order_by('pk').values(),
        *Webhook.object_types.through.objects.order_by('pk').values(),
        *EventRule.objects.order_by('pk').values(),
        *ObjectChange.objects.order_by('pk').values(),
    ]


class TestDefinition:
    def test_the_whole_definition_is_carried_over(self):
        rule = builtin_rule(
            Site,
            Rack,
            kinds=(OBJECT_CREATED, OBJECT_DELETED),
            payload_url='https://receiver.example.com/{{ object_type }}',
            http_method='PUT',
            http_content_type='application/vnd.acme+json',
            additional_headers='X-Token: s3cret\nX-Object: {{ data.name | header_safe }}',
            secret='whispered',
            ssl_verification=False,
            timeout=7,
            rule_description='Tell the CMDB',
            rule_conditions={'attr': 'status.value', 'value': 'active'},
        )
        run()
        (made,) = Webhook.objects.all()
        assert made.name == rule.name
        assert made.description == 'Tell the CMDB'
        assert made.enabled
        assert {t.model for t in made.object_types.all()} == {'site', 'rack'}
        assert made.kinds == ['created', 'deleted']
        assert made.payload_url.reveal() == 'https://receiver.example.com/{{ object_type }}'
        assert (made.http_method, made.http_content_type) == ('PUT', 'application/vnd.acme+json')
        assert made.additional_headers.reveal() == 'X-Token: s3cret\nX-Object: {{ data.name | header_safe }}'
        assert made.secret.reveal() == 'whispered'
        assert (made.ssl_verification, made.timeout, made.max_attempts) == (False, 7, 1)
        assert made.conditions == {'attr': 'status.value', 'value': 'active'}
        assert (made.payload_format, made.include_snapshots) == ('netbox', False)

    def test_it_has_the_defaults_of_required_custom_fields(self):
        owner = CustomField.objects.create(name='owner', type='text', required=True, default='net')
        owner.object_types.set([ObjectType.objects.get_for_model(Webhook)])
        builtin_rule(Site)
        run()
        assert Webhook.objects.get().custom_field_data == {'owner': 'net'}

    def test_a_disabled_rule_gives_a_disabled_webhook(self):
        builtin_rule(rule_enabled=False)
        assert 'imported, but disabled, like the event rule' in run()
        assert not Webhook.objects.get().enabled

    def test_each_rule_of_one_webhook_gives_one(self):
        first = builtin_rule()
        second = EventRule.objects.create(
            name='Another', event_types=[OBJECT_CREATED], action_type='webhook', action_object=first.action_object
        )
        second.object_types.set([ContentType.objects.get_for_model(Rack)])
        run()
        assert {made.name for made in Webhook.objects.all()} == {first.name, 'Another'}

    def test_retries_are_those_of_the_queue(self, settings):
        settings.RQ_RETRY_MAX = 4
        builtin_rule()
        run()
        assert Webhook.objects.get().max_attempts == 5

    def test_a_ca_file_below_certificate_root_is_carried_over(self, monkeypatch, tmp_path):
        (tmp_path / 'ca.pem').write_text('')
        change_settings(monkeypatch, certificate_root=tmp_path)
        builtin_rule(ca_file_path=str(tmp_path / 'ca.pem'))
        run()
        assert Webhook.objects.get().ca_file_path == str(tmp_path / 'ca.pem')

    def test_a_body_template_gives_the_same_body(self, receiver: Receiver):
        template = (
            '{{ event }}|{{ object_type }}|{{ data.name }}|{{ timestamp[:4] }}|{{ request }}|'
            '{{ snapshots.prechange.name }}|{{ snapshots.postchange.name }}'
        )
        builtin_rule(payload_url=receiver.url('/'), body_template=template, http_content_type='text/plain')
        run()
        place = site(name='Before')
        place.name = 'After'
        place.save()
        work()
        _created, updated = receiver.wait_for(2)
        year = ObjectChange.objects.first().time.year
        assert updated.body.decode() == f'updated|dcim.site|After|{year}||Before|After'


class TestNotCarriedOver:
    def refused(self, *reasons: str) -> None:
        output = run('--disable-builtin')
        assert not Webhook.objects.exists()
        assert EventRule.objects.get().enabled
        assert f'{EventRule.objects.get().name}: cannot be imported' in output
        assert 'the event rule stays enabled' in output
        for reason in reasons:
            assert f'  {reason}' in output

    def test_a_rule_with_some_job_events_is_refused(self):
        builtin_rule(kinds=(OBJECT_CREATED, 'job_started', 'job_completed'))
        self.refused('event_types: job_completed, job_started: a webhook sends only changes of objects;')

    def test_a_rule_with_job_events_alone_is_refused(self):
        builtin_rule(kinds=('job_failed',))
        self.refused('event_types: job_failed: a webhook sends only changes of objects')

    def test_a_rule_without_events_is_refused(self):
        builtin_rule(kinds=())
        self.refused('event_types: the event rule has none')

    def test_a_rule_with_action_data_is_refused(self):
        builtin_rule(rule_action_data={'team': 'core'})
        self.refused('action_data: ')

    def test_a_rule_for_a_model_that_is_not_allowed_is_refused(self):
        builtin_rule(Site, Location)
        self.refused('object_types: dcim.location is not in the setting allowed_models')

    def test_a_rule_without_a_model_is_refused(self):
        builtin_rule().object_types.clear()
        self.refused('object_types: the event rule has none')

    def test_a_ca_file_elsewhere_is_refused(self):
        builtin_rule(ca_file_path='/etc/ssl/certs/ca.pem')
        self.refused('ca_file_path: To use files, name their folder in the setting certificate_root.')

    @pytest.mark.parametrize(
        ('fields', 'reason'),
        [
            ({'secret': 'whsec_short'}, 'secret: '),
            ({'secret': 'whsk_' + 'A' * 43 + '='}, 'secret: it begins with whsk_'),
            ({'additional_headers': 'no colon'}, 'additional_headers: Line 1 has no colon'),
            ({'additional_headers': 'Host: elsewhere'}, 'additional_headers: Host is set by the plugin'),
            ({'http_method': 'GET', 'body_template': 'x'}, 'body_template: '),
            ({'body_template': '{{ x'}, 'body_template: Invalid template'),
            ({'rule_conditions': {'attr': 'name', 'op': 'regex', 'value': '('}}, 'conditions: Invalid conditions'),
        ],
    )
    def test_a_builtin_webhook_with_a_value_that_ours_refuses_stays(self, fields: dict[str, Any], reason: str):
        builtin_rule(**fields)
        self.refused(reason)

    def test_all_reasons_are_named(self):
        builtin_rule(Location, kinds=(OBJECT_CREATED, 'job_failed'), rule_action_data={'a': 1}, secret='whsec_short')
        self.refused('event_types: ', 'action_data: ', 'object_types: ', 'secret: ')

    def test_no_reason_shows_a_secret(self):
        rules = [
            builtin_rule(secret='whsec_hush-hush', additional_headers='X-Token: hush-hush\nHost: hush-hush'),
            builtin_rule(additional_headers='Authorization: Bearer\n hush-hush'),
        ]
        output = run()
        assert all(rule.name in output for rule in rules)
        assert 'hush-hush' not in output

    def test_rules_with_another_action_are_left_out(self):
        EventRule.objects.create(
            name='Ours',
            event_types=[OBJECT_CREATED],
            action_type='webhooks.send',
            action_object=subscribe(NOWHERE, Site),
        )
        assert 'There is nothing to import' in run()


class TestAgain:
    def test_a_second_run_changes_nothing(self):
        builtin_rule()
        builtin_rule(rule_action_data={'a': 1})
        builtin_rule(rule_enabled=False)
        run('--disable-builtin')
        before = state()
        output = run('--disable-builtin')
        assert state() == before
        assert 'exists already' in output

    def test_importing_again_keeps_what_was_edited_since(self):
        builtin_rule()
        run()
        Webhook.objects.update(timeout=99, description='edited')
        run()
        assert list(Webhook.objects.values_list('timeout', 'description')) == [(99, 'edited')]


class TestDryRun:
    def test_a_dry_run_writes_nothing_and_says_what_would_be(self):
        rule = builtin_rule()
        before = state()
        assert run('--dry-run', '--disable-builtin').splitlines() == [
            f'{rule.name}: would be imported',
            '  the event rule would be disabled',
        ]
        assert state() == before


class TestDisableBuiltin:
    def test_the_rule_that_is_carried_over_is_switched_off_and_logged(self):
        rule, other = builtin_rule(), builtin_rule(rule_action_data={'a': 1})
        assert '  the event rule is disabled' in run('--disable-builtin')
        rule.refresh_from_db()
        other.refresh_from_db()
        assert (rule.enabled, other.enabled) == (False, True)
        assert Webhook.objects.get().enabled
        created, updated = ObjectChange.objects.order_by('pk')
        assert (created.action, created.changed_object) == ('create', Webhook.objects.get())
        assert (updated.action, updated.changed_object) == ('update', rule)
        assert (updated.prechange_data['enabled'], updated.postchange_data['enabled']) == (True, False)
        assert {change.user_name for change in (created, updated)} == {'webhooks_import'}
        assert created.request_id == updated.request_id

    def test_no_secret_is_in_the_change_log(self):
        builtin_rule(secret='hush-hush', additional_headers='X-Token: hush-hush')
        run()
        log = str(list(ObjectChange.objects.values()))
        assert 'payload_url' in log
        assert 'hush-hush' not in log

    def test_nothing_is_imported_where_the_rule_cannot_be_switched_off(self, monkeypatch):
        rule = builtin_rule()
        monkeypatch.setattr(EventRule, 'save', _fail)
        with pytest.raises(DatabaseError):
            run('--disable-builtin')
        rule.refresh_from_db()
        assert rule.enabled
        assert not Webhook.objects.exists()

    def test_a_rule_that_was_imported_before_is_switched_off(self):
        rule = builtin_rule()
        run()
        rule.refresh_from_db()
        assert rule.enabled
        run('--disable-builtin')
        rule.refresh_from_db()
        assert not rule.enabled

    @pytest.mark.parametrize(
        ('edit', 'gap'),
        [
            ({'enabled': False}, 'enabled'),
            ({'paused': True}, 'paused'),
            ({'type_delete': False}, 'creations, updates and deletions'),
            ({'conditions': {'attr': 'status.value', 'value': 'active'}}, 'conditions'),
            ({'payload_url': 'http://127.0.0.1:9/?token=t0ken'}, 'payload_url'),
            ({'http_method': 'PUT'}, 'http_method'),
            ({'http_content_type': 'text/plain'}, 'http_content_type'),
            ({'payload_format': 'default'}, 'payload_format'),
            ({'payload_format': 'default', 'body_template': 'x'}, 'body_template, payload_format'),
            ({'additional_headers': 'X-Token: another'}, 'additional_headers'),
            ({'secret': 'another'}, 'secret'),
            ({'secret': Sealed('of a key that is gone')}, 'secret'),
            ({'change_set': True}, 'change_set'),
            ({'latest_only': True}, 'latest_only'),
            ({'quiet': 10}, 'quiet'),
            ({'include_components': True}, 'include_components'),
            ({'include_snapshots': True}, 'include_snapshots'),
            ({'expand': ['region']}, 'expand'),
            ({'only_real_changes': True}, 'only_real_changes'),
            ({'only_if_changed': ['status']}, 'only_if_changed'),
            ({'ssl_verification': True}, 'ssl_verification'),
        ],
    )
    def test_the_rule_stays_on_where_ours_of_that_name_sends_less_or_otherwise(self, edit: dict[str, Any], gap: str):
        rule = builtin_rule(
            payload_url='http://127.0.0.1:9/?token=s3cret',
            additional_headers='X-Token: s3cret',
            secret='s3cret',
            ssl_verification=False,
        )
        run()
        webhook = Webhook.objects.get()
        for name, value in edit.items():
            setattr(webhook, name, value)
        webhook.save()
        output = self.stays_on(rule)
        assert f'{rule.name}: exists already, but differs from the event rule in: {gap}\n' in output
        assert not [word for word in ('s3cret', 't0ken', 'another') if word in output]

    def stays_on(self, rule: EventRule) -> str:
        output = run('--disable-builtin')
        assert '  the event rule stays enabled' in output
        rule.refresh_from_db()
        assert rule.enabled
        return output

    def test_the_rule_stays_on_where_ours_ignores_users(self, netbox_user: User):
        rule = builtin_rule()
        run()
        Webhook.objects.get().ignore_users.add(netbox_user)
        assert 'differs from the event rule in: ignore_users\n' in self.stays_on(rule)

    def test_the_rule_stays_on_where_a_template_would_miss_the_snapshots(self):
        rule = builtin_rule(body_template='{{ snapshots.prechange.name }}')
        run()
        Webhook.objects.update(include_snapshots=False)
        assert 'differs from the event rule in: include_snapshots\n' in self.stays_on(rule)

    @pytest.mark.parametrize(
        ('edit', 'reason'),
        [
            ({'event_types': [OBJECT_CREATED, 'job_failed']}, 'event_types: job_failed: a webhook sends only changes'),
            ({'action_data': {'team': 'core'}}, 'action_data: a webhook cannot add data to the object'),
        ],
    )
    def test_the_rule_stays_on_where_it_does_what_no_webhook_of_ours_can(self, edit: dict[str, Any], reason: str):
        rule = builtin_rule()
        run()
        EventRule.objects.update(**edit)
        assert f'  {reason}' in self.stays_on(rule)

    def test_the_rule_is_switched_off_where_ours_sends_more(self):
        rule = builtin_rule(Site, kinds=(OBJECT_CREATED,), rule_conditions={'attr': 'name', 'value': 'Bern'})
        run()
        webhook = Webhook.objects.get()
        webhook.object_types.add(ContentType.objects.get_for_model(Rack))
        webhook.conditions, webhook.type_update, webhook.max_attempts = None, True, 8
        webhook.save()
        assert '  the event rule is disabled' in run('--disable-builtin')
        rule.refresh_from_db()
        assert not rule.enabled

    @pytest.mark.parametrize('options', [(), ('--dry-run',)])
    def test_the_rule_stays_on_while_nobody_records(self, monkeypatch, options: tuple[str, ...]):
        builtin_rule()
        before = state()
        change_settings(monkeypatch, enabled=False)
        with pytest.raises(CommandError, match=r'WEBHOOKS_ENABLED\) is not True'):
            run('--disable-builtin', *options)
        assert state() == before

    def test_the_rule_stays_on_where_a_webhook_of_that_name_is_for_something_else(self):
        rule = builtin_rule(Rack, payload_url='http://127.0.0.1:9/rack')
        subscribe(NOWHERE, Site, name=rule.name)
        assert 'differs from the event rule in: object_types, payload_url, payload_format' in run('--disable-builtin')
        rule.refresh_from_db()
        assert rule.enabled
        assert Webhook.objects.count() == 1

    def test_nobody_gets_a_change_twice_or_not_at_all(self, receiver: Receiver, api_client, drain):
        builtin_rule(payload_url=receiver.url('/'))
        run('--disable-builtin')
        assert api_client.post('/api/dcim/sites/', {'name': 'Bern', 'slug': 'bern'}).status_code == 201
        drain()
        (request,) = receiver.wait_for(1)
        assert (request.json()['event'], request.json()['data']['name']) == ('created', 'Bern')
        assert len(receiver.requests) == 1


def _fail(*args: Any, **kwargs: Any) -> None:
    raise DatabaseError('no')


def test_without_a_rule_there_is_nothing_to_do():
    assert builtin_import.plan() == []
    assert 'There is nothing to import' in run()


def test_each_field_of_a_webhook_is_compared_or_may_differ():
    """An import switches NetBox's own webhook off only if ours sends as much."""
    checked = {'enabled', 'paused', 'object_types', 'ignore_users', 'conditions', *FLAGS.values()}
    names = [*COMPARED_FIELDS, *FREE_FIELDS, *checked]
    assert sorted(names) == sorted(NAMES)
