from urllib.parse import quote_plus

from playwright.sync_api import expect
from support.browser.steps import PATIENCE, add_site, delivery_of

from devstack.show import is_signed


def test_a_webhook_is_defined_in_the_django_admin_and_works(admin, api, receiver):
    admin.visit('admin/')
    admin.page.get_by_role('row', name='Webhooks').get_by_role('link', name='Add').click()
    admin.field('Name:').fill('From the admin')
    admin.field('Site').check()
    admin.field('URL:').fill(receiver.url('/hook'))
    admin.field('Generate a secret').check()
    admin.button('Save').click()
    secret = admin.page.locator('.wh-note code').inner_text()
    admin.button('Copy').click()
    admin.field('Description:').press('ControlOrMeta+V')
    expect(admin.field('Description:')).to_have_value(secret)
    site = add_site(api)
    [request] = receiver.wait_for(1, timeout=PATIENCE)
    assert is_signed(request, secret)

    delivery_of(api, site, 'delivered')
    admin.visit('admin/webhooks/delivery/')
    expect(admin.page.get_by_role('row', name=site['name'])).to_contain_text('Delivered')


def test_a_webhook_gets_its_object_types_by_keyboard(admin, api):
    admin.visit('plugins/webhooks/webhooks/add/')
    admin.field('Name').fill('By keyboard')
    admin.field('URL').fill('http://127.0.0.1:9/')
    for key, label in (('Enter', 'Rack'), ('Space', 'Site'), ('Enter', 'Device')):
        admin.field('Available object types').select_option(label=label)
        admin.page.locator('.move-option', has_text='Add').press(key)
    admin.field('Selected object types').select_option(label='Device')
    admin.page.locator('.move-option', has_text='Remove').press('Space')
    admin.button('Create').press('Enter')
    expect(admin.page.locator('h1.page-title')).to_contain_text('By keyboard')
    [webhook] = api.get('plugins/webhooks/webhooks/', name='By keyboard')['results']
    assert sorted(webhook['object_types']) == ['dcim.rack', 'dcim.site']


def test_a_list_of_netbox_becomes_a_copy_that_fills_itself(admin, api, receiver):
    site = add_site(api)
    admin.visit(f'dcim/sites/?status=active&name={site["name"]}')
    admin.button('Webhook for this list').click()
    admin.field('Name').fill('From a list')
    admin.field('URL').fill(receiver.url('/copy'))
    admin.field('Send the present list').check()
    admin.button('Create').click()
    [request] = receiver.wait_for(1, timeout=PATIENCE)
    body = request.json()
    assert (body['event'], body['membership'], body['data']['id']) == ('created', 'entered', site['id'])


def test_a_quick_search_belongs_to_the_filter_of_a_list(admin, api):
    site, other = add_site(api), add_site(api)
    admin.visit('dcim/sites/?status=active')
    admin.page.locator('#quicksearch').press_sequentially(site['name'])
    expect(admin.page.get_by_role('row', name=other['name'])).to_have_count(0)
    admin.button('Webhook for this list').click()
    shown = admin.page.get_by_role('group', name='Filters').get_by_label('Site', exact=True)
    expect(shown).to_have_value(f'status=active&q={quote_plus(site["name"])}')


def test_each_selected_object_type_has_a_filter(admin, api):
    admin.visit('plugins/webhooks/webhooks/add/')
    admin.field('Name').fill('Lists')
    admin.field('URL').fill('http://127.0.0.1:9/')
    filters = admin.page.get_by_role('group', name='Filters')
    expect(filters).to_be_hidden()
    for label, query in (('Rack', 'status=active'), ('Site', 'status=planned')):
        admin.field('Available object types').select_option(label=label)
        admin.page.locator('.move-option', has_text='Add').click()
        filters.get_by_label(label, exact=True).fill(query)
    expect(admin.field('Send the present list')).to_be_visible()
    admin.field('Selected object types').select_option(label='Rack')
    admin.page.locator('.move-option', has_text='Remove').click()
    expect(filters.get_by_role('textbox')).to_have_count(1)
    admin.button('Create').click()
    expect(admin.page.locator('h1.page-title')).to_contain_text('Lists')
    [webhook] = api.get('plugins/webhooks/webhooks/', name='Lists')['results']
    assert webhook['filters'] == {'dcim.site': 'status=planned'}


def test_a_field_that_is_wrong_is_shown_though_its_group_is_folded(admin, api):
    """The browser refuses the number, and NetBox the file."""
    admin.visit('plugins/webhooks/webhooks/add/')
    admin.field('Name').fill('Folded')
    admin.field('URL').fill('http://127.0.0.1:9/')
    admin.unfold('Retries and Limits')
    admin.field('Maximum attempts').fill('-1')
    admin.unfold('Retries and Limits')
    expect(admin.field('Maximum attempts')).to_be_hidden()
    admin.button('Create').click()
    expect(admin.field('Maximum attempts')).to_be_visible()
    admin.field('Maximum attempts').fill('3')
    admin.unfold('TLS')
    admin.field('CA file').fill('/etc/passwd')
    admin.button('Create').click()
    expect(admin.page.locator('.text-danger').filter(has_text='certificate_root')).to_be_visible()
    assert not api.get('plugins/webhooks/webhooks/', name='Folded')['results']


def test_a_webhook_is_defined_in_netbox_and_works(admin, api, place, receiver):
    place.add_user('robot')
    admin.visit('/')
    admin.button('Webhooks').click()
    admin.page.locator('#sidebar-menu a[href$="/plugins/webhooks/webhooks/"]').click()
    admin.link('Add').last.click()
    admin.field('Name').fill('From a page')
    admin.page.locator('#id_object_types_0').select_option(label=['Device', 'Site'])
    admin.page.locator('.move-option[data-target="object_types_1"]').click()
    admin.page.locator('#id_object_types_1').select_option(label=['Device'])
    admin.page.locator('.move-option[data-source="object_types_1"]').click()
    for kind in ('type_create', 'type_update', 'type_delete'):
        # NetBox gives the boxes of a row no labels.
        expect(admin.page.locator(f'#id_{kind}')).to_be_checked()
    expect(admin.field('Maximum attempts')).to_be_hidden()
    admin.unfold('Only Some Changes')
    admin.choose('ignore_users', 'robot')
    admin.unfold('Request and Body')
    admin.choose('payload_format', 'CloudEvents')
    admin.field('URL').fill('ftp://receiver/')
    admin.button('Create').click()
    expect(admin.page.locator('.invalid-feedback, .text-danger').filter(has_text='http')).to_be_visible()

    admin.field('URL').fill(receiver.url('/hook'))
    admin.button('Create').click()
    expect(admin.page.get_by_role('heading', name='From a page')).to_be_visible()
    [webhook] = api.get('plugins/webhooks/webhooks/', name='From a page')['results']
    assert webhook['object_types'] == ['dcim.site']
    assert [user['username'] for user in webhook['ignore_users']] == ['robot']

    site = add_site(api)
    [request] = receiver.wait_for(1, timeout=PATIENCE)
    assert 'specversion' in request.json()
    delivery_of(api, site, 'delivered')
    admin.page.reload()
    expect(admin.page.get_by_role('row', name=site['name'])).to_contain_text('Delivered')
