"""The pages of a webhook with `include_config_contexts`."""

import pytest
from dcim.models import Device
from support.builders import NOWHERE, UPDATED, device, subscribe
from users.models import User

from webhooks.models import ContextWalk, Webhook
from webhooks.presentation import progress

pytestmark = pytest.mark.usefixtures('db')


@pytest.fixture
def webhook(db) -> Webhook:
    device(), device()
    made = subscribe(NOWHERE, Device, kinds=(UPDATED,), include_config_contexts=True)
    ContextWalk.objects.update(looked=1)
    return made


def text(answer: object) -> str:
    return ' '.join(answer.content.decode().split())


def test_its_page_shows_how_many_objects_were_compared(admin_pages, webhook):
    assert '1 of 2 objects compared' in text(admin_pages.get(webhook.get_absolute_url()))
    ContextWalk.objects.all().delete()
    assert 'objects compared' not in text(admin_pages.get(webhook.get_absolute_url()))


def test_a_webhook_that_does_not_ask_shows_nothing(admin_pages, webhook):
    other = subscribe(NOWHERE, Device)
    assert 'objects compared' not in text(admin_pages.get(other.get_absolute_url()))


def test_a_user_who_may_not_view_all_objects_sees_no_numbers(webhook):
    shown = progress.walking(webhook, User.objects.create(username='mila'))
    assert shown is not None
    assert (shown.looked, shown.total) == (None, None)
