from playwright.sync_api import expect
from support.browser.steps import PATIENCE, add_site, add_webhook, delivery_of


def test_webhooks_are_edited_in_bulk(admin, api, receiver):
    chosen = [add_webhook(api, receiver.url('/hook')) for _ in range(2)]
    other = add_webhook(api, receiver.url('/hook'))
    admin.visit('plugins/webhooks/webhooks/')
    for webhook in chosen:
        admin.page.get_by_role('row', name=webhook['name']).get_by_role('checkbox').check()
    admin.button('Edit Selected').first.click()
    admin.choose('enabled', 'No')
    admin.field('Maximum attempts').fill('3')
    admin.button('Apply').click()
    for webhook in chosen:
        expect(admin.page.get_by_role('row', name=webhook['name'])).to_contain_text('Disabled')
    expect(admin.page.get_by_role('row', name=other['name'])).to_contain_text('Active')
    edited = api.get('plugins/webhooks/webhooks/', max_attempts=3)['results']
    assert {webhook['name'] for webhook in edited} == {webhook['name'] for webhook in chosen}


def test_selected_deliveries_are_redelivered(admin, api, receiver):
    receiver.answers('/hook', 500)
    webhook = add_webhook(api, receiver.url('/hook'), max_attempts=1)
    failed = [delivery_of(api, add_site(api), 'failed') for _ in range(2)]
    receiver.answers('/hook', 200)
    admin.visit(f'plugins/webhooks/deliveries/?status=failed&webhook_id={webhook["id"]}')
    admin.page.locator('th input.toggle').check()
    admin.button('Redeliver selected').first.click()
    expect(admin.page.get_by_text('2 deliveries to 1 webhook will be sent again.')).to_be_visible()
    admin.button('Redeliver').click()
    expect(admin.page.get_by_role('alert')).to_contain_text('2')
    again = [request.header('webhook-id') for request in receiver.wait_for(4, timeout=PATIENCE)[2:]]
    assert set(again) == {delivery['uuid'] for delivery in failed}


def test_selected_rows_of_a_list_are_sent_now_and_without_any_all_that_are_listed(admin, api, receiver):
    sites = [api.post('dcim/sites/', name=f'Peak {name}', slug=name.lower()) for name in ('Rigi', 'Titlis', 'Napf')]
    webhook = add_webhook(api, receiver.url('/hook'))
    shown = admin.page.locator('h1.page-title')
    admin.visit('dcim/sites/?name__isw=Peak')
    for site in sites[:2]:
        admin.page.get_by_role('row', name=site['name']).get_by_role('checkbox').check()
    admin.button('Send now').click()
    expect(shown).to_contain_text('Peak Rigi and Peak Titlis')
    admin.button('Send now').click()
    expect(admin.page.get_by_role('alert')).to_contain_text(f'2 objects are being sent to {webhook["name"]}.')
    sent = [request.json() for request in receiver.wait_for(2, timeout=PATIENCE)]
    assert {body['data']['id'] for body in sent} == {site['id'] for site in sites[:2]}

    admin.visit('dcim/sites/?name__isw=Peak')
    admin.button('Send now').click()
    for site in sites:
        expect(shown).to_contain_text(site['name'])
    admin.visit('dcim/sites/?name__isw=Peak')
    admin.page.locator('#quicksearch').press_sequentially('Napf')
    expect(admin.page.get_by_role('row', name='Peak Rigi')).to_have_count(0)
    admin.button('Send now').click()
    expect(shown).to_contain_text('Send now: Peak Napf')


def test_what_the_quick_search_hides_is_not_redelivered_and_not_brought_back(admin, api, receiver):
    webhook = add_webhook(api, receiver.url('/hook'))
    for name in ('Rigi', 'Napf'):
        delivery_of(api, api.post('dcim/sites/', name=f'Hill {name}', slug=f'hill-{name.lower()}'), 'delivered')
    admin.visit(f'plugins/webhooks/webhooks/{webhook["id"]}/deliveries/')
    admin.page.locator('#quicksearch').press_sequentially('Napf')
    hidden = admin.page.get_by_role('row', name='Hill Rigi')
    expect(hidden).to_have_count(0)
    with admin.page.expect_response(lambda response: 'auto-refresh' in response.request.headers.get('hx-trigger', '')):
        pass
    expect(hidden).to_have_count(0)
    expect(admin.page.get_by_role('row', name='Hill Napf')).to_have_count(1)
    admin.page.get_by_role('link', name='Redeliver everything in this list').click()
    expect(admin.page.get_by_text('1 delivery to 1 webhook will be sent again.')).to_be_visible()
    # On a tab, NetBox's quick search misses elements that only NetBox's lists have.
    admin.problems.clear()
