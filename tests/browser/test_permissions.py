from playwright.sync_api import expect
from support.browser.steps import add_site, add_webhook, delivery_of

FORBIDDEN = ('plugins/webhooks/webhooks/', 'plugins/webhooks/deliveries/', 'admin/', 'admin/webhook-backend-status/')


def test_without_permission_there_are_no_webhooks_to_see(person, place):
    place.add_user('clerk')
    clerk = person('clerk')
    expect(clerk.button('Webhooks')).to_have_count(0)
    clerk.expected = {403}
    for path in FORBIDDEN:
        assert clerk.visit(path).status == 403


def test_a_user_who_may_view_only_webhooks_sees_nothing_that_they_send(person, place, api, receiver):
    place.add_user('reader', webhooks_webhook=['view'], webhooks_delivery=['view'])
    webhook = add_webhook(api, receiver.url('/hook'))
    delivery = delivery_of(api, add_site(api), 'delivered')
    reader = person('reader')
    reader.visit('plugins/webhooks/webhooks/')
    expect(reader.link(webhook['name'])).to_be_visible()
    expect(reader.page.locator('a[href*="/webhooks/add/"]')).to_have_count(0)
    reader.link(webhook['name']).click()
    for action in ('Send a test', 'Redeliver past events', 'Edit', 'Delete'):
        expect(reader.button(action).or_(reader.link(action))).to_have_count(0)
    reader.visit(f'plugins/webhooks/deliveries/{delivery["id"]}/')
    expect(reader.page.get_by_text('because you may not view the object').first).to_be_visible()
    expect(reader.page.get_by_text('signal_received_timestamp')).to_have_count(0)
    expect(reader.button('Redeliver')).to_have_count(0)


def test_a_user_who_may_redeliver_and_view_deliveries_can_redeliver(person, place, api, receiver):
    place.add_user('operator', webhooks_delivery=['view', 'redeliver'], dcim_site=['view'])
    receiver.answers('/hook', 500, 200)
    add_webhook(api, receiver.url('/hook'), max_attempts=1)
    site = add_site(api)
    failed = delivery_of(api, site, 'failed')
    operator = person('operator')
    operator.visit(f'plugins/webhooks/deliveries/{failed["id"]}/')
    expect(operator.page.get_by_text('signal_received_timestamp').first).to_be_visible()
    operator.button('Redeliver').click()
    delivery_of(api, site, 'delivered')
