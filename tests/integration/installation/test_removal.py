from contextlib import nullcontext
from io import StringIO
from typing import Any

import pytest
from core.models import Job
from django.core.management import CommandError, call_command
from support.elsewhere import run
from support.settings import change_settings

from devstack.failure import StartFailed
from devstack.netbox import NetBox
from devstack.postgres import DatabaseAddress
from webhooks.jobs import WebhooksRetentionJob

pytestmark = pytest.mark.usefixtures('committed')

FURNISH = """
from core.choices import ObjectChangeActionChoices
from core.models import Job, ObjectType
from dcim.models import Site
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from extras.models import *
from extras.models import Webhook as BuiltinWebhook
from extras.dashboard.utils import get_default_dashboard
from users.models import ObjectPermission, User
from webhooks.engine.process import inline
from webhooks.jobs import WebhooksRetentionJob
from webhooks.models import Delivery, Webhook
from webhooks.services import builtin_import, failed_jobs

ours, delivery, sites = (ObjectType.objects.get_for_model(model) for model in (Webhook, Delivery, Site))
user = User.objects.create_superuser(username='admin', password='admin', email='admin@example.com')

# A webhook that was taken over from NetBox, with a failed and a pending delivery
builtin = BuiltinWebhook.objects.create(name='Builtin', payload_url='http://127.0.0.1:9/')
rule = EventRule.objects.create(name='Taken over', event_types=['object_created'], action_type='webhook',
    action_object_type=ContentType.objects.get_for_model(BuiltinWebhook), action_object_id=builtin.pk)
rule.object_types.add(sites)
builtin_import.carry_out(builtin_import.plan(), disable_builtin=True)
webhook = Webhook.objects.get()
Webhook.objects.update(max_attempts=1)
Site.objects.create(name='Bern', slug='bern')
while not Delivery.objects.filter(status='failed').exists():  # a slow machine may need another job
    inline.run()
failed_jobs.publish()
Site.objects.create(name='Genf', slug='genf')
WebhooksRetentionJob.enqueue_once(interval=1440)

# What hangs on it
tag = Tag.objects.create(name='Tag', slug='tag')
tag.object_types.add(ours)
webhook.tags.add(tag)
generic = {'object_type': ours, 'object_id': webhook.pk, 'user': user}
Bookmark.objects.create(**generic)
Subscription.objects.create(**generic)
Notification.objects.create(**generic, event_type='webhook_suspended', object_repr='Taken over')
JournalEntry.objects.create(assigned_object=webhook, comments='A word')
change = webhook.to_objectchange(ObjectChangeActionChoices.ACTION_UPDATE)
change.user, change.request_id = user, 'c0ffee00-0000-4000-8000-000000000000'
change.save()
LogEntry.objects.create(user=user, content_type=ours, object_id=webhook.pk, action_flag=2)
Job.objects.create(name='Export', object_type=ours, job_id='c0ffee00-0000-4000-8000-000000000001')
TableConfig.objects.create(name='Table', object_type=delivery, table='DeliveryTable', columns=['id'])

# What names our object types alone, or among others
for model, fields in (
    (CustomField, {'type': 'text'}),
    (CustomLink, {'link_text': 'x', 'link_url': 'http://127.0.0.1/'}),
    (ExportTemplate, {'template_code': 'x'}),
    (SavedFilter, {'parameters': {}}),
    (ObjectPermission, {'actions': ['view']}),
    (EventRule, {'event_types': ['object_updated'], 'action_type': 'webhook'}),
):
    for name, types in (('ours', [ours]), ('shared', [ours, sites])):
        slug = {'slug': name} if model is SavedFilter else {}
        model.objects.create(name=name, **fields, **slug).object_types.set(types)
pointer = CustomField.objects.create(name='pointer', type='object', related_object_type=ours)
pointer.object_types.add(sites)
Site.objects.update(custom_field_data={'pointer': webhook.pk, 'shared': 'kept'})
sender = EventRule.objects.create(name='sender', event_types=['object_updated'], action_type='webhooks.send',
    action_object_type=ContentType.objects.get_for_model(Webhook), action_object_id=webhook.pk)
sender.object_types.add(sites)
for name, kinds in (('suspended', ['webhook_suspended']), ('both', ['webhook_suspended', 'object_updated'])):
    EventRule.objects.create(name=name, event_types=kinds, action_type='webhook').object_types.add(sites)

dashboard = get_default_dashboard([
    {'widget': 'webhooks.WebhooksWidget', 'width': 4, 'height': 4},
    {'widget': 'extras.ObjectListWidget', 'width': 4, 'height': 4, 'config': {'model': 'webhooks.delivery'}},
    {'widget': 'extras.ObjectCountsWidget', 'width': 4, 'height': 4, 'title': 'Numbers',
     'config': {'models': ['dcim.site', 'webhooks.webhook']}},
])
dashboard.user = user
dashboard.save()
print('furnished', *Delivery.objects.order_by('pk').values_list('status', flat=True))
try:
    call_command('webhooks_remove', '--yes')
except CommandError as error:
    print('refused', error)
"""

# A webhook that is deleted while the plugin is off: no worker deletes its log.
DELETE = """
from webhooks.models import Delivery, Webhook
gone = Webhook.objects.create(name='Gone', payload_url='http://127.0.0.1:9/')
Delivery.objects.filter(state='failed').update(webhook=gone)
gone.delete()
"""

# As docs/installation.md says.
REMOVE = """
from django.core.management import call_command
call_command('webhooks_remove', '--yes')
call_command('migrate', 'webhooks', 'zero', verbosity=0)
call_command('migrate', 'admin', 'zero', verbosity=0)
"""
FORGET = """
from django.core.management import call_command
call_command('remove_stale_contenttypes', '--include-stale-apps', '--no-input', verbosity=0)
"""

# Runs without the plugin.
LOOK = """
from dcim.models import Site
from django.test import Client
from extras.models import *
from users.models import ObjectPermission, User
client = Client(headers={'host': 'localhost'})
client.force_login(User.objects.get())
pages = ['', 'core/changelog/', 'core/jobs/', 'core/background-queues/',
    'extras/journal-entries/', 'user/notifications/', 'user/subscriptions/', 'user/bookmarks/', 'search/?q=Taken',
    f'dcim/sites/{Site.objects.first().pk}/', f'dcim/sites/{Site.objects.first().pk}/changelog/']
models = {'custom-fields': CustomField, 'custom-links': CustomLink, 'export-templates': ExportTemplate,
    'saved-filters': SavedFilter, 'event-rules': EventRule, 'table-configs': TableConfig, 'tags': Tag}
for path, model in models.items():
    pages.append(f'extras/{path}/')
    pages += [f'extras/{path}/{pk}/{action}' for pk in model.objects.values_list('pk', flat=True)
              for action in ('', 'edit/')]
pages += ['users/permissions/'] + [f'users/permissions/{p.pk}/' for p in ObjectPermission.objects.all()]
answers = {page: client.get(f'/{page}') for page in pages}
print('wrong', *(page for page, answer in answers.items() if answer.status_code != 200))
home = answers[''].content.decode()
print('dashboard', 'Numbers' in home, 'There was an error' in home or 'An error was' in home)
for model in (CustomField, CustomLink, ExportTemplate, SavedFilter, ObjectPermission, EventRule, Tag):
    print(model.__name__, *model.objects.order_by('name').values_list('name', flat=True))
print('rule', EventRule.objects.get(name='both').event_types, EventRule.objects.get(name='Taken over').enabled)
print('data', *(site.custom_field_data for site in Site.objects.all()))
place = Site.objects.create(name='Chur', slug='chur')
place.delete()
"""

KEPT = """
CustomField ours shared
CustomLink ours shared
ExportTemplate ours shared
SavedFilter ours shared
ObjectPermission ours shared
EventRule Taken over both ours shared
Tag Tag
rule ['object_updated'] False
data {'shared': 'kept'} {'shared': 'kept'}
""".strip().splitlines()


def rows_that_name_us(database: DatabaseAddress) -> set[str]:
    """Return all tables that mention our names, and objects named after us."""
    with database.connect() as connection:
        found = connection.execute(
            'SELECT relname, relkind FROM pg_class '
            "WHERE relkind IN ('r', 'S') AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        named = {name for name, _kind in found if name.startswith(('webhooks_', 'django_admin'))}
        tables = [name for name, kind in found if kind == 'r']
        looks = ' UNION ALL '.join(
            f"SELECT '{name}' FROM \"{name}\" t WHERE t::text ~* '\\mwebhooks\\M|webhook_suspended|WebhooksWidget' "
            + ("AND app IN ('webhooks', 'admin')" if name == 'django_migrations' else '')
            for name in tables
        )
        functions = connection.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'webhooks\\_%'")
        return named | {name for (name,) in [*connection.execute(looks), *functions.fetchall()]}


def content_types(database: DatabaseAddress) -> set[tuple[str, str]]:
    with database.connect() as connection:
        return set(connection.execute('SELECT app_label, model FROM django_content_type').fetchall())


@pytest.fixture
def netbox(make_netbox: Any) -> NetBox:
    """Its tables are full and webhooks are off."""
    made = make_netbox(fresh=True)
    furnished, refused = run(made.database, FURNISH)[-2:]
    assert furnished == 'furnished failed'
    assert refused.startswith('refused The setting "enabled" (or WEBHOOKS_ENABLED) is True')
    configure(made, 'WEBHOOKS_ENABLED = False')
    return made


def configure(netbox: NetBox, settings: str = '', *, plugin: bool = True) -> None:
    netbox.settings, netbox.plugin = settings, plugin
    netbox.write_configuration()


def test_it_leaves_nothing_that_would_break_a_page_of_netbox(netbox):
    before = rows_that_name_us(netbox.database)
    assert {'webhooks_delivery', 'django_content_type', 'extras_dashboard', 'core_job'} <= before
    types_before = content_types(netbox.database)
    with pytest.raises(StartFailed, match=r'ended with 1:\n(?s:.*)no terminal to ask on\. Nothing was removed\.'):
        netbox.warm.run('webhooks_remove', '--skip-checks')
    assert rows_that_name_us(netbox.database) == before

    said = netbox.warm.run('shell', '--no-imports', '-c', DELETE + REMOVE)
    for line in ('1 extras.Bookmark', '1 extras.CustomField', '1 core.Job'):
        assert line in said
    configure(netbox, plugin=False)
    lines = netbox.run('shell', '-c', FORGET + LOOK)
    assert lines.stdout.splitlines()[-len(KEPT) - 2 :] == ['wrong', 'dashboard True False', *KEPT], lines.stderr
    assert rows_that_name_us(netbox.database) == set()
    assert content_types(netbox.database) < types_before


@pytest.mark.parametrize(('answer', 'is_removed'), [('no', False), ('yes', True)])
def test_on_a_terminal_it_asks(answer, is_removed, monkeypatch):
    change_settings(monkeypatch, enabled=False)
    WebhooksRetentionJob.enqueue_once(interval=1440)
    monkeypatch.setattr('sys.stdin', terminal := Terminal(f'{answer}\n'))
    with nullcontext() if is_removed else pytest.raises(CommandError, match='Nothing was removed'):
        call_command('webhooks_remove')
    assert terminal.read() == ''
    assert Job.objects.filter(name=WebhooksRetentionJob.name).exists() != is_removed


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True
