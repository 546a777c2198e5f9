import pytest
from playwright.sync_api import expect
from support.browser.steps import PATIENCE, add_site, add_webhook, delivery_of

from devstack.process import wait_until
from devstack.receiver import Answer


@pytest.fixture
def webhook(api, receiver):
    receiver.answers('/hook', Answer(500, b'out of order'))
    return add_webhook(api, receiver.url('/hook'), max_attempts=1)


def test_a_failure_is_seen_and_requeued(admin, api, receiver, webhook):
    site = add_site(api)
    failed = delivery_of(api, site, 'failed')
    admin.visit('plugins/webhooks/webhooks/')
    admin.link(webhook['name']).click()
    row = admin.page.get_by_role('row', name=site['name'])
    expect(row).to_contain_text('Failed')
    row.locator(f'a[href*="/deliveries/{failed["id"]}/"]').first.click()
    expect(admin.page.locator('.timeline')).to_contain_text('500')
    expect(admin.page.get_by_text('out of order').first).to_be_visible()

    receiver.answers('/hook', 200)
    job = admin.page.locator(f'tr:has(input[value="{failed["uuid"]}"])')

    def is_listed() -> bool:
        admin.visit('admin/webhook-backend-status/queues/2/failed/')
        return job.count() > 0

    assert wait_until(is_listed, timeout=PATIENCE), 'a worker lists it within seconds'
    expect(job).to_contain_text(webhook['name'])
    expect(job).to_contain_text('500')
    job.get_by_role('checkbox').check()
    admin.page.get_by_label('Action').select_option(label='Requeue')
    admin.button('Go').click()
    admin.button('Requeue 1 job').click()
    expect(admin.page.locator('.messagelist')).to_contain_text('requeued')
    expect(job).to_have_count(0)
    assert receiver.wait_for(2, timeout=PATIENCE)[1].header('webhook-id') == failed['uuid']

    delivery_of(api, site, 'delivered')
    admin.visit(f'plugins/webhooks/deliveries/{failed["id"]}/')
    expect(admin.page.locator('.timeline-event')).to_have_count(2)
    expect(admin.page.locator('.timeline-event').first).to_contain_text('200')


def test_the_page_of_a_delivery_follows_it(admin, api, receiver, webhook):
    failed = delivery_of(api, add_site(api), 'failed')
    receiver.answers('/hook', Answer(200, delay=1.0))
    admin.visit(f'plugins/webhooks/deliveries/{failed["id"]}/')
    admin.button('Redeliver').click()
    expect(admin.page.locator('#delivery').get_by_text('Delivered', exact=True).first).to_be_visible()
    expect(admin.page.locator('.timeline-event')).to_have_count(2)
    expect(admin.button('Redeliver')).to_be_enabled()


def test_the_log_follows_what_happens(admin, api, receiver):
    admin.visit('plugins/webhooks/deliveries/')
    add_webhook(api, receiver.url('/hook'))
    site = add_site(api)
    expect(admin.page.get_by_role('row', name=site['name'])).to_contain_text('Delivered')


def test_a_test_event_shows_its_answer(admin, api, receiver):
    webhook = add_webhook(api, receiver.url('/hook'))
    add_site(api)
    receiver.wait_for(1, timeout=PATIENCE)
    admin.visit(f'plugins/webhooks/webhooks/{webhook["id"]}/')
    admin.button('Send a test').click()
    expect(admin.page.get_by_text('200').first).to_be_visible()
    assert receiver.wait_for(2, timeout=PATIENCE)[1].json()['test'] is True
