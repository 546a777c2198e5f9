import pytest
from django.test import Client
from support.admin_browser import queries
from support.builders import site
from support.log import delivery, event
from users.models import User

EVENTS = '/admin/webhooks/event/'


@pytest.fixture
def client(netbox_user: User) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


def test_the_list_shows_what_happened_and_links_its_object(client):
    berlin = site(name='Berlin')
    event(berlin, username='ada')
    text = client.get(EVENTS).content.decode()
    for words in ('Site: Updated', 'Berlin', berlin.get_absolute_url(), 'ada'):
        assert words in text


@pytest.mark.parametrize('term', ['rli', '{object_id}', '{uuid}'])
def test_it_is_searched_by_name_id_and_uuid(client, term):
    wanted = event(site(name='Berlin'))
    event(site(name='Bern'))
    found = client.get(EVENTS, {'q': term.format(object_id=wanted.object_id, uuid=wanted.uuid)})
    assert list(found.context['cl'].result_list) == [wanted]


def test_its_page_shows_data_and_deliveries(client):
    failed = delivery(event(site(name='Berlin')))
    text = client.get(f'{EVENTS}{failed.event_id}/change/').content.decode()
    for words in ('&quot;name&quot;: &quot;Berlin&quot;', f'/admin/webhooks/delivery/{failed.pk}/change/', 'HTTP 500'):
        assert words in text


def test_it_cannot_be_changed_added_or_deleted(client):
    page = f'{EVENTS}{event(site()).pk}/'
    assert client.get(f'{EVENTS}add/').status_code == 403
    assert client.post(f'{page}delete/', {'post': 'yes'}).status_code == 403
    assert client.post(f'{page}change/', {'username': 'x'}).status_code == 403


def test_a_long_list_costs_no_more_queries_than_a_short_one(client):
    event(site())
    few = queries(client, EVENTS)
    for _ in range(5):
        event(site())
    assert queries(client, EVENTS) == few
