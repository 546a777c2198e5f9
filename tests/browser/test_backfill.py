import pytest
from playwright.sync_api import Locator, expect
from support.browser.person import Person
from support.browser.steps import add_sites, add_webhook

from devstack.receiver import Answer

SITES = 40
# Seconds, so that slow machines can pause the backfill.
SLOWLY = Answer(200, delay=3.0)


@pytest.fixture
def webhook(api, receiver):
    add_sites(api, SITES)
    return add_webhook(api, receiver.url('/hook'), concurrency=1)


def start(someone: Person, webhook: dict) -> Locator:
    """Return the card with the progress."""
    someone.visit(f'plugins/webhooks/webhooks/{webhook["id"]}/')
    # The arrow after its name is a character too.
    someone.page.get_by_role('button', name='More').click()
    someone.link('Backfill').click()
    expect(someone.field('Filter')).to_be_visible()
    someone.button('Backfill').click()
    return someone.page.locator('#backfill')


def test_its_progress_is_followed_to_the_end(admin, webhook, receiver):
    card = start(admin, webhook)
    expect(card).to_contain_text('Completed')
    expect(card).to_contain_text('objects sent')
    expect(card.get_by_role('button')).to_have_count(0)
    assert {request.json()['backfill'] for request in receiver.requests} == {True}
    assert len(receiver.requests) >= SITES


def test_it_is_held_and_canceled(admin, api, webhook, receiver):
    receiver.answers('/hook', SLOWLY)
    card = start(admin, webhook)
    expect(card).to_contain_text('Running')
    # Without a reload.
    expect(card.get_by_role('progressbar')).not_to_have_attribute('value', '0')
    card.get_by_role('button', name='Pause').click()
    expect(card).to_contain_text('Paused')
    card.get_by_role('button', name='Resume').click()
    expect(card).to_contain_text('Running')
    card.get_by_role('button', name='Cancel').click()
    expect(card).to_contain_text('Canceled')
    assert api.get(f'plugins/webhooks/webhooks/{webhook["id"]}/backfill/')['state'] == 'canceled'
    assert len(receiver.requests) < SITES


def test_a_wrong_filter_is_explained_beside_its_field(admin, webhook):
    admin.visit(f'plugins/webhooks/webhooks/{webhook["id"]}/backfill/')
    admin.field('Filter').fill('colour=red')
    admin.button('Backfill').click()
    expect(admin.page.get_by_text('no filter colour')).to_be_visible()
    admin.field('Filter').fill('status=active')
    admin.button('Backfill').click()
    expect(admin.page.locator('#backfill')).to_contain_text('status=active')
