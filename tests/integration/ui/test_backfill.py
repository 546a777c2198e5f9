import pytest
from dcim.models import Site
from django.contrib.messages import get_messages
from support.builders import NOWHERE, site, subscribe
from tenancy.models import Tenant

from webhooks.choices import BackfillStateChoices
from webhooks.models import Backfill, Webhook
from webhooks.presentation import progress
from webhooks.services import backfill

pytestmark = pytest.mark.usefixtures('db')

RUNNING, PAUSED, COMPLETED, CANCELED, FAILED = BackfillStateChoices.values()


@pytest.fixture
def webhook(db) -> Webhook:
    return subscribe(NOWHERE, Site, Tenant)


def text(answer: object) -> str:
    return ' '.join(answer.content.decode().split())


def said(answer: object) -> str:
    return ' '.join(str(message) for message in get_messages(answer.wsgi_request))


def start(webhook: Webhook) -> Backfill:
    return backfill.start(webhook, backfill.choose(webhook))


class TestNetBox:
    def test_the_form_starts_it(self, admin_pages, webhook):
        site()
        address = f'{webhook.get_absolute_url()}backfill/'
        assert 'Tenant' in text(admin_pages.get(address))
        types = [str(webhook.object_types.get(model='site').pk)]
        answer = admin_pages.post(address, {'object_types': types, 'filter': 'status=active'})
        assert answer.status_code == 302
        made = Backfill.objects.get()
        assert (made.state, made.object_types, made.query) == (RUNNING, [int(types[0])], 'status=active')
        assert (made.total, made.username) == (1, 'admin')

    @pytest.mark.parametrize(
        ('data', 'field'), [({'filter': 'colour=red'}, 'filter'), ({'object_types': ['0']}, 'object_types')]
    )
    def test_the_form_names_what_is_wrong(self, admin_pages, webhook, data, field):
        answer = admin_pages.post(f'{webhook.get_absolute_url()}backfill/', data)
        assert list(answer.context['form'].errors) == [field]

    def test_the_form_says_why_nothing_is_started(self, admin_pages, webhook):
        start(webhook)
        answer = admin_pages.post(f'{webhook.get_absolute_url()}backfill/', {})
        assert 'already running' in text(answer)

    def test_the_page_shows_how_far_it_is_and_what_can_be_done(self, admin_pages, webhook):
        assert 'id="backfill"' not in text(admin_pages.get(webhook.get_absolute_url()))
        site(), site(), start(webhook)
        Backfill.objects.update(recorded=1)
        page = text(admin_pages.get(webhook.get_absolute_url()))
        assert '1 of 2 objects sent' in page
        assert 'value="1" max="2"' in page
        assert 'backfill/pause/' in page
        assert 'backfill/cancel/' in page
        assert 'backfill/resume/' not in page

    def test_the_buttons_move_it(self, admin_pages, webhook):
        start(webhook)
        for path, state in (('pause', PAUSED), ('resume', RUNNING), ('cancel', CANCELED)):
            answer = admin_pages.post(f'{webhook.get_absolute_url()}backfill/{path}/')
            assert answer.url == webhook.get_absolute_url()
            assert Backfill.objects.get().state == state
        assert 'No backfill is' in said(admin_pages.post(f'{webhook.get_absolute_url()}backfill/pause/'))

    def test_a_user_without_the_permission_sees_no_buttons(self, clerk_pages, grant, webhook):
        start(webhook)
        grant(Webhook, 'view')
        page = text(clerk_pages.get(webhook.get_absolute_url()))
        assert 'Backfill' in page
        assert 'backfill/pause/' not in page
        assert clerk_pages.post(f'{webhook.get_absolute_url()}backfill/pause/').status_code == 403
        grant(Webhook, 'backfill')
        assert 'backfill/pause/' in text(clerk_pages.get(webhook.get_absolute_url()))


class TestProgress:
    def test_objects_that_came_since_are_counted_as_far_as_they_are_recorded(self, webhook):
        start(webhook)
        Backfill.objects.update(total=2, recorded=3)
        assert progress.of(webhook).total == 3

    def test_objects_that_went_are_not_missing_in_the_end(self, webhook):
        start(webhook)
        Backfill.objects.update(total=5, recorded=3, state=COMPLETED)
        shown = progress.of(webhook)
        assert (shown.sent, shown.total) == (3, 3)
