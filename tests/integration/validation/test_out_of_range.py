"""Values beyond the range of PostgreSQL or Python name their field and cause no error 500."""

import pytest
from dcim.models import Site
from django.core.management import CommandError, call_command
from support.admin_browser import ADD, DELIVERIES, filled
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from webhooks.models import Webhook

# PostgreSQL takes offsets below 16 hours, Python those below 24.
BEYOND = ('2026-11-24T05:15:46+19:15', '2026-11-24T05:15:46-16:00', '2026-11-24 05:15:46+23:59')
WITHIN = '2026-11-24T05:15:46+15:59'
API = '/api/plugins/webhooks'
PAGES = '/plugins/webhooks'
TIMES = {
    'webhooks': ('created', 'last_updated'),
    'deliveries': ('created', 'finished_at'),
    'events': ('timestamp',),
}
FILTERS = [(name, field) for name, fields in TIMES.items() for field in fields]
LOOKUPS = ('', '__n', '__lt', '__lte', '__gt', '__gte')
ENDLESS = '{"attr": "name", "op": "regex", "value": "a{99999999999}"}'

pytestmark = pytest.mark.usefixtures('log')


@pytest.fixture
def log(committed: None) -> None:
    """PostgreSQL errors break transactions, so these tests run in none."""
    delivery(event(site()), subscribe(NOWHERE, Site, name='Receiver'))


class TestTimes:
    @pytest.mark.parametrize(('name', 'field'), FILTERS)
    def test_the_api_names_the_filter(self, api_client, name: str, field: str):
        for number, lookup in enumerate(LOOKUPS):
            parameter = f'{field}{lookup}'
            answer = api_client.get(f'{API}/{name}/', {parameter: BEYOND[number % len(BEYOND)]})
            assert (answer.status_code, list(answer.json())) == (400, [parameter])
            assert api_client.get(f'{API}/{name}/', {parameter: WITHIN}).status_code == 200

    def test_the_api_names_the_filter_beside_a_good_one(self, api_client):
        answer = api_client.get(f'{API}/deliveries/', {'created__gte': [WITHIN, BEYOND[0]], 'status': 'failed'})
        assert (answer.status_code, list(answer.json())) == (400, ['created__gte'])

    @pytest.mark.parametrize(('name', 'field'), FILTERS)
    def test_the_pages_name_the_filter(self, admin_pages, name: str, field: str):
        for time in (*BEYOND, WITHIN):
            assert admin_pages.get(f'{PAGES}/{name}/', {f'{field}__gte': time}).status_code == 200

    @pytest.mark.parametrize(
        ('name', 'field'), [('deliveries', 'created__gte'), ('events', 'timestamp__lte')], ids=['deliveries', 'events']
    )
    def test_the_filter_beside_the_list_says_so(self, admin_pages, name: str, field: str):
        for time, wrong in ((BEYOND[0], [field]), (WITHIN, [])):
            form = admin_pages.get(f'{PAGES}/{name}/', {field: time}).context['filter_form']
            assert list(form.errors) == wrong

    @pytest.mark.parametrize('field', ['since', 'until'])
    def test_a_replay_names_the_field(self, admin_pages, field: str):
        address = f'{PAGES}/webhooks/{Webhook.objects.get().pk}/replay/'
        form = admin_pages.post(address, {'since': '2026-01-01', field: BEYOND[0]}).context['form']
        assert list(form.errors) == [field]

    def test_the_command_names_the_argument(self):
        with pytest.raises(CommandError, match='--since'):
            call_command('webhooks_replay', '--since', BEYOND[0])


class TestNumbers:
    @pytest.mark.parametrize('digits', [5, 10, 20, 400, 5000])
    def test_numbers_out_of_range_find_nothing(self, api_client, admin_pages, digits: int):
        number = '9' * digits
        for name, field in (('webhooks', 'timeout'), ('deliveries', 'response_status'), ('events', 'object_id')):
            for parameter in (field, f'{field}__gt', 'id'):
                answer = api_client.get(f'{API}/{name}/', {parameter: number})
                assert answer.status_code == 400 or answer.json()['count'] == 0
        assert admin_pages.get(DELIVERIES, {'q': number}).status_code == 200
        answer = admin_pages.post(f'{PAGES}/deliveries/redeliver/', {'pk': number})
        assert (answer.status_code, answer.context['figures'].count) == (200, 0)


class TestExpressions:
    """test_refusals.py covers the model and API."""

    def test_the_page_names_the_expression(self, admin_pages):
        answer = admin_pages.post(f'{PAGES}/webhooks/add/', filled(name='New', conditions=ENDLESS))
        assert 'conditions' in answer.context['form'].errors

    def test_the_admin_names_the_expression(self, admin_pages):
        answer = admin_pages.post(ADD, filled(name='New', conditions=ENDLESS))
        assert list(answer.context['adminform'].form.errors) == ['conditions']

    def test_an_import_names_the_expression(self, admin_pages):
        row = f'- {{name: New, object_types: [dcim.site], payload_url: "{NOWHERE}", conditions: {ENDLESS}}}'
        answer = admin_pages.post(f'{PAGES}/webhooks/import/', {'data': row, 'format': 'yaml'})
        assert b'conditions: Invalid conditions' in answer.content
        assert not Webhook.objects.filter(name='New').exists()
