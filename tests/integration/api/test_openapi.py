"""It must be told apart from NetBox's own webhooks."""

from contextlib import redirect_stderr
from io import StringIO

import pytest
import yaml
from django.core.management import call_command
from drf_spectacular.validation import validate_schema

from devstack import rest_reference

WEBHOOKS = '/api/plugins/webhooks/'
NETBOXS_OWN = {'Webhook', 'WebhookRequest', 'PatchedWebhookRequest', 'BriefWebhook'}


@pytest.fixture(scope='module')
def generated(django_db_blocker, tmp_path_factory, pytestconfig):
    """Return the generator's messages and its description. `--long`: of all of NetBox."""
    path = tmp_path_factory.mktemp('openapi') / 'schema.yaml'
    urlconf = None if pytestconfig.getoption('--long') else 'support.openapi_urls'
    with django_db_blocker.unblock(), redirect_stderr(StringIO()) as said:
        call_command('spectacular', file=str(path), urlconf=urlconf)
    # The pure Python loader takes half a minute.
    return said.getvalue(), yaml.load(path.read_text(), Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))


@pytest.fixture(scope='module')
def paths(generated):
    return {path: item for path, item in generated[1]['paths'].items() if path.startswith(WEBHOOKS)}


def test_nothing_of_ours_is_warned_about(generated):
    warnings, _schema = generated
    told = [line for line in warnings.splitlines() if ': Warning' in line or ': Error' in line]
    assert not [line for line in told if 'webhooks' in line]


def test_the_openapi_document_is_valid(generated, paths):
    """NetBox's part takes seconds."""
    components = generated[1]['components']
    used = {name: components['schemas'][name] for name in references(paths, components['schemas'])}
    validate_schema(generated[1] | {'paths': paths, 'components': components | {'schemas': used}})


def test_each_of_our_paths_is_described(paths):
    below = {path.removeprefix(WEBHOOKS) for path in paths}
    assert {'webhooks/', 'webhooks/{id}/', 'events/', 'events/{id}/', 'deliveries/', 'deliveries/{id}/'} <= below
    assert {f'webhooks/{{id}}/backfill/{move}' for move in ('', 'pause/', 'resume/', 'cancel/')} <= below
    assert {'webhooks/{id}/test/', 'webhooks/{id}/replay/', 'deliveries/{id}/redeliver/'} <= below
    assert {method for method in paths[f'{WEBHOOKS}deliveries/'] if method != 'parameters'} == {'get'}


def test_the_page_of_the_docs_is_made_from_it(generated):
    assert rest_reference.PAGE.read_text() == rest_reference.page(generated[1]), 'run scripts/site reference'


def test_our_components_have_names_of_their_own(generated, paths):
    used = references(paths, generated[1]['components']['schemas'])
    ours = {name for name in used if 'Webhook' in name}
    assert {'ReliableWebhook', 'WebhookEvent', 'WebhookDelivery', 'WebhookAttempt', 'WebhookHealth'} <= ours
    assert not ours & NETBOXS_OWN
    assert not used & {'Event', 'Delivery', 'Attempt', 'Health', 'Secret', 'Count', 'Preview', 'Replay'}


def references(node, schemas, found=None):
    """Return used components, nested ones included."""
    found = set() if found is None else found
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == '$ref' and (name := value.rpartition('/')[2]) not in found:
            found.add(name)
            references(schemas[name], schemas, found)
        elif isinstance(value, dict | list):
            references(value, schemas, found)
    return found


def test_fields_that_may_be_restricted_are_nullable(generated):
    schemas = generated[1]['components']['schemas']
    for name in ('data', 'object_id', 'username', 'request_id'):
        assert schemas['WebhookEvent']['properties'][name]['nullable']
    for name in ('request_url', 'request_headers', 'response_headers', 'response_body'):
        assert schemas['WebhookAttempt']['properties'][name]['nullable']


def test_an_event_may_have_the_name_of_any_event_type(generated):
    schemas = generated[1]['components']['schemas']
    assert 'enum' in schemas['WebhookDelivery']['properties']['status']
    for name in ('WebhookEvent', 'BriefWebhookEvent'):
        assert 'enum' not in schemas[name]['properties']['kind']


def test_no_secret_is_answered(generated):
    schemas = generated[1]['components']['schemas']
    assert 'secret' in schemas['ReliableWebhookRequest']['properties']
    assert 'secret' not in schemas['ReliableWebhook']['properties']
