import json
from collections.abc import Callable
from typing import Any

import pytest
from dcim.models import Site
from support.builders import NOWHERE, subscribe

from devstack.netbox import NetBox

pytestmark = pytest.mark.usefixtures('committed')

OFF = "PLUGINS_CONFIG = {'webhooks': {'enabled': True, 'admin': False}}\nMETRICS_ENABLED = True\n"
ON = "PLUGINS_CONFIG = {'webhooks': {'enabled': True}}\nMETRICS_ENABLED = True\n"
FOUND = """
import json
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

user = get_user_model().objects.get(username='admin')
client = Client(SERVER_NAME='localhost')
client.force_login(user)

def status(path):
    return client.get(path).status_code

if not apps.is_installed('django.contrib.admin'):
    call_command('check')
    call_command('makemigrations', 'webhooks', '--check', '--dry-run')  # exits with 1 where one is missing

print('FOUND', json.dumps({
    'urlconf': settings.ROOT_URLCONF,
    'apps': [app for app in settings.INSTALLED_APPS if 'admin' in app.lower()],
    'folders': settings.TEMPLATES[0]['DIRS'],
    'is_staff': hasattr(get_user_model(), 'is_staff'),
    'admin': status('/admin/'),
    'old_status': status('/admin/webhook-backend-status/'),
    'pages': [status(reverse('plugins:webhooks:' + name)) for name in (
        'status', 'webhook_list', 'webhook_add', 'delivery_list', 'event_list')],
    'own_address': status('/plugins/webhooks/metrics'),
    'metrics': client.get('/plugins/webhooks/metrics').content.decode(),
    'netboxs_metrics': client.get('/metrics').content.decode(),
    'registered': sorted(model._meta.label for model in admin.site._registry if model._meta.app_label == 'webhooks')
        if apps.is_installed('django.contrib.admin') else [],
}))
"""


@pytest.fixture(scope='module')
def answered() -> dict[str, dict[str, Any]]:
    """NetBox starts once for each set of settings."""
    return {}


@pytest.fixture
def found(make_netbox: Callable[..., Any], netbox_user, answered) -> Callable[[str], dict[str, Any]]:
    def ask(settings: str) -> dict[str, Any]:
        if settings not in answered:
            subscribe(NOWHERE, Site)
            answer = make_netbox(settings).run('shell', '-c', FOUND)
            assert not answer.returncode, answer.stderr
            answered[settings] = json.loads(answer.stdout.partition('FOUND ')[2])
        return answered[settings]

    return ask


def test_with_it_off_netbox_is_as_without_the_plugin(found):
    shown = found(OFF)
    assert (shown['urlconf'], shown['apps'], shown['is_staff']) == ('netbox.urls', [], False)
    assert [folder for folder in shown['folders'] if folder.endswith('/webhooks/templates')] == []
    assert (shown['admin'], shown['old_status']) == (404, 404)


def test_with_it_off_everything_is_on_netboxs_own_pages(found):
    shown = found(OFF)
    assert shown['pages'] == [200] * 5
    assert 'webhooks_workers' in shown['metrics']
    # Operators may have closed NetBox's own address.
    assert 'django_http_requests' not in shown['metrics']
    assert 'django_http_requests' in shown['netboxs_metrics']
    assert 'webhooks_workers' not in shown['netboxs_metrics']


def test_by_default_the_admin_is_there(found):
    shown = found(ON)
    assert shown['urlconf'] == 'webhooks.django_admin.urlconf'
    assert (shown['apps'], shown['is_staff']) == (['webhooks.django_admin.app.WebhooksAdminConfig'], True)
    assert (shown['admin'], shown['old_status'], shown['pages']) == (200, 200, [200] * 5)
    assert shown['registered'] == ['webhooks.Credential', 'webhooks.Delivery', 'webhooks.Event', 'webhooks.Webhook']
    assert shown['own_address'] == 404
    assert 'webhooks_workers' in shown['netboxs_metrics']


class TestAdminOfAnotherPlugin:
    COMPANY = """
from netbox.plugins import PluginConfig

class CompanyConfig(PluginConfig):
    name = 'company'
    verbose_name = 'Company'
    version = '1'
    django_apps = ['django.contrib.admin']

config = CompanyConfig
"""
    FOUND = """
from django.contrib import admin
print('FOUND', sorted(model._meta.label for model in admin.site._registry if model._meta.app_label == 'webhooks'))
"""

    @pytest.fixture
    def company(self, make_netbox) -> NetBox:
        settings = "PLUGINS_CONFIG = {'webhooks': {'admin': False}}\nWEBHOOKS_ENABLED = False\n"
        netbox = make_netbox(f"{settings}PLUGINS = ['webhooks', 'company']\n", fresh=True)
        (netbox.root / 'company').mkdir(exist_ok=True)
        (netbox.root / 'company/__init__.py').write_text(self.COMPANY)
        return netbox

    def test_it_shows_nothing_of_ours(self, company):
        answer = company.run('shell', '-c', self.FOUND)
        assert not answer.returncode, answer.stderr
        assert 'FOUND []\n' in answer.stdout
