import pytest
from dcim.models import Rack, Site
from support.admin_browser import DELIVERIES, page_of
from support.builders import CREATED, NOWHERE, UPDATED, site, subscribe
from support.log import delivery, event

from webhooks.models import Delivery, Event, Webhook

API = '/api/plugins/webhooks'
PAGES = '/plugins/webhooks'


@pytest.fixture
def webhook(db) -> Webhook:
    # Saving sites then records nothing.
    return subscribe(NOWHERE, Rack)


@pytest.fixture
def told(webhook) -> Delivery:
    return delivery(event(site(name='Told'), backfill_for=webhook.pk), webhook, backfill=True)


@pytest.fixture
def changed(webhook) -> Delivery:
    marks = {'caused_by': ['dcim.interface', 'ipam.ipaddress'], 'partial': ['rack_count']}
    return delivery(event(site(name='Changed'), **marks), webhook)


def rows(answer: object) -> list[int]:
    return [row.record.pk for row in answer.context['table'].rows]


class TestBackfill:
    def test_the_rest_api_marks_backfills(self, api_client, told, changed):
        shown = api_client.get(f'{API}/deliveries/').json()['results']
        assert {one['id']: (one['backfill'], one['event']['backfill']) for one in shown} == {
            told.pk: (True, True),
            changed.pk: (False, False),
        }

    @pytest.mark.parametrize(
        ('asked', 'found'),
        [
            ('webhooks_delivery_list(filters: {backfill: {exact: true}})', ['told']),
            ('webhooks_delivery_list(filters: {event: {backfill: false}})', ['changed']),
            ('webhooks_event_list(filters: {backfill: true})', ['told']),
            ('webhooks_event_list(filters: {backfill: false})', ['changed']),
            ('webhooks_event_list', ['told', 'changed']),
        ],
    )
    def test_graphql_marks_backfills_and_filters_by_them(self, request, api_client, told, changed, asked, found):
        answer = api_client.post('/graphql/', {'query': f'{{ {asked} {{ id backfill }} }}'}, format='json').json()
        [shown] = answer['data'].values()
        of = 'event' if 'event_list' in asked else None
        wanted = [request.getfixturevalue(name) for name in found]
        assert {(int(one['id']), one['backfill']) for one in shown} == {
            (one.event_id if of else one.pk, one.backfill) for one in wanted
        }

    def test_the_list_of_deliveries(self, admin_pages, told, changed):
        page = admin_pages.get(f'{PAGES}/deliveries/?backfill=true')
        assert rows(page) == [told.pk]
        assert 'name="backfill"' in page.content.decode()
        assert 'backfill' in [name for name, _label in page.context['table'].available_columns]

    def test_the_list_of_events(self, admin_pages, told, changed):
        sent = event(site(), test=True)
        page = admin_pages.get(f'{PAGES}/events/?backfill=true')
        assert rows(page) == [told.event_id]
        assert 'name="backfill"' in page.content.decode()
        page = admin_pages.get(f'{PAGES}/events/?test=true')
        assert rows(page) == [sent.pk]
        assert 'name="test"' in page.content.decode()

    def test_both_lists_mark_it_beside_what_happened(self, admin_pages, told, changed):
        for name in ('deliveries', 'events'):
            table = admin_pages.get(f'{PAGES}/{name}/').context['table']
            cells = {row.record.pk: str(row.get_cell('kind')) for row in table.rows}
            marked = [pk for pk, cell in cells.items() if '>Backfill</span>' in cell]
            assert marked == [told.pk if name == 'deliveries' else told.event_id]

    def test_the_page_of_a_delivery(self, admin_pages, told):
        assert admin_pages.get(told.get_absolute_url()).content.decode().count('>Backfill<') >= 2

    def test_the_admin_marks_backfills_and_filters_by_them(self, admin_pages, told, changed):
        page = admin_pages.get(f'{DELIVERIES}?backfill__exact=1')
        assert [one.pk for one in page.context['cl'].result_list] == [told.pk]
        assert ': Updated · Backfill' in page.content.decode()
        assert '· Backfill' not in admin_pages.get(f'{DELIVERIES}?backfill__exact=0').content.decode()


def test_a_test_is_marked_in_the_lists(admin_pages, webhook, changed):
    sent = delivery(event(site(), test=True), webhook)
    for name, marked in (('deliveries', sent.pk), ('events', sent.event_id)):
        table = admin_pages.get(f'{PAGES}/{name}/').context['table']
        assert [row.record.pk for row in table.rows if '>Test</span>' in str(row.get_cell('kind'))] == [marked]


class TestCauses:
    """`caused_by` names related models; `partial` names keys whose values were lost."""

    MARKS = ('dcim.interface, ipam.ipaddress', 'rack_count')

    @pytest.mark.parametrize('page', ['event', 'delivery', 'admin'])
    def test_each_page_of_it_shows_its_marks(self, admin_pages, changed, page):
        address = {
            'event': changed.event.get_absolute_url(),
            'delivery': changed.get_absolute_url(),
            'admin': page_of(changed),
        }[page]
        text = admin_pages.get(address).content.decode()
        assert [mark for mark in self.MARKS if mark not in text] == []

    def test_the_list_of_events(self, admin_pages, changed):
        table = admin_pages.get(f'{PAGES}/events/').context['table']
        [row] = table.rows
        assert (row.get_cell('caused_by'), row.get_cell('partial')) == self.MARKS
        assert (row.get_cell_value('caused_by'), row.get_cell_value('partial')) == self.MARKS

    @pytest.mark.parametrize('page', ['event', 'delivery'])
    def test_a_user_who_may_not_view_the_object_sees_no_causes(self, clerk_pages, grant, changed, page):
        grant(Event, 'view')
        grant(Delivery, 'view')
        address = (changed.event if page == 'event' else changed).get_absolute_url()
        text = clerk_pages.get(address).content.decode()
        assert [mark for mark in self.MARKS if mark in text] == []
        grant(Site, 'view')
        text = clerk_pages.get(address).content.decode()
        assert [mark for mark in self.MARKS if mark not in text] == []

    def test_the_list_and_the_api_hide_causes_too(self, clerk_pages, clerk_api, grant, changed):
        grant(Event, 'view')
        [row] = clerk_pages.get(f'{PAGES}/events/').context['table'].rows
        assert (row.record.caused_by, row.record.partial) == (None, None)
        [shown] = clerk_api.get(f'{API}/events/').json()['results']
        assert (shown['caused_by'], shown['partial']) == (None, None)
        grant(Site, 'view')
        [row] = clerk_pages.get(f'{PAGES}/events/').context['table'].rows
        assert row.record.partial == ['rack_count']


class TestKind:
    """With `latest_only`, an update may be sent as the creation that it superseded."""

    @pytest.fixture
    def as_created(self, webhook) -> Delivery:
        return delivery(event(site(name='New'), kind=UPDATED), webhook, span={'kind': CREATED})

    def test_the_list_shows_the_kind_that_is_sent(self, admin_pages, as_created, changed):
        table = admin_pages.get(f'{PAGES}/deliveries/').context['table']
        assert {row.record.pk: row.get_cell_value('kind') for row in table.rows} == {
            as_created.pk: 'Created',
            changed.pk: 'Updated',
        }
        [badge] = [row.get_cell('kind') for row in table.rows if row.record == as_created]
        assert 'text-bg-green' in badge

    def test_its_page_shows_the_kind_that_is_sent(self, admin_pages, as_created):
        text = admin_pages.get(as_created.get_absolute_url()).content.decode()
        assert 'Created</span>' in text
        assert 'Updated</span>' not in text

    def test_the_admin_shows_the_kind_that_is_sent(self, admin_pages, as_created):
        text = admin_pages.get(DELIVERIES).content.decode()
        assert 'Site: Created' in text
        assert 'Site: Updated' not in text
