"""Every page, light and wide, then dark, narrow and in German, is sound, readable and accessible.

axe-core finds no serious or critical problem: of any kind in the first look, of colours in the second.
"""

import re
from collections.abc import Callable, Iterable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from support.browser.person import Person
from support.browser.steps import add_site, add_webhook, delivery_of

PAGES = (
    '',
    'plugins/webhooks/status/',
    'plugins/webhooks/webhooks/',
    'plugins/webhooks/webhooks/add/',
    'plugins/webhooks/webhooks/{webhook}/',
    'plugins/webhooks/webhooks/{webhook}/deliveries/',
    'plugins/webhooks/webhooks/{webhook}/edit/',
    'plugins/webhooks/webhooks/{webhook}/preview/',
    'plugins/webhooks/webhooks/{webhook}/rotate-secret/',
    'plugins/webhooks/webhooks/{webhook}/replay/',
    'plugins/webhooks/webhooks/{webhook}/backfill/',
    'plugins/webhooks/webhooks/{webhook}/send-waiting/',
    'plugins/webhooks/webhooks/{webhook}/changelog/',
    'plugins/webhooks/webhooks/{webhook}/delete/',
    'plugins/webhooks/webhooks/{feed}/',
    'plugins/webhooks/credentials/',
    'plugins/webhooks/credentials/add/',
    'plugins/webhooks/credentials/{credential}/',
    'plugins/webhooks/deliveries/',
    'plugins/webhooks/deliveries/redeliver/?webhook_id={webhook}',
    'plugins/webhooks/deliveries/{delivery}/',
    'plugins/webhooks/events/',
    'plugins/webhooks/events/{event}/',
    'dcim/sites/{site}/webhooks/',
    'admin/',
    'admin/webhooks/webhook/',
    'admin/webhooks/webhook/add/',
    'admin/webhooks/webhook/{webhook}/change/',
    'admin/webhooks/webhook/{webhook}/delete/',
    'admin/webhooks/webhook/{feed}/change/',
    'admin/webhooks/credential/',
    'admin/webhooks/credential/{credential}/change/',
    'admin/webhooks/delivery/',
    'admin/webhooks/delivery/{delivery}/change/',
    'admin/webhooks/event/',
    'admin/webhooks/event/{event}/change/',
    'admin/webhook-backend-status/',
    'admin/webhook-backend-status/queues/2/failed/',
    'admin/webhook-backend-status/queues/2/finished/',
    'admin/webhook-backend-status/queues/2/requeue-all/',
)
# NetBox's form and django-rq's page are too wide for a telephone.
WIDE_PAGES = ('plugins/webhooks/webhooks/import/', 'admin/webhook-backend-status/queues/2/{job}/')

# Contrast of visible texts to their background (WCAG 2.2, 1.4.3). Django draws a line between its shortcuts of dates.
CONTRASTS = """() => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const rgba = text => numbers(text).map((part, i) => text.startsWith('color(srgb ') && i < 3 ? part * 255 : part);
    const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const over = ([r, g, b, a = 1], below) => [r, g, b].map((part, i) => part * a + below[i] * (1 - a));
    const behind = element => element
        ? over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement))
        : [255, 255, 255];
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
        const element = node.parentElement, text = node.textContent.trim();
        if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        if (element.closest('script, style, noscript, [disabled], .datetimeshortcuts')) continue;
        const style = getComputedStyle(element), ink = rgba(element.closest('svg') ? style.fill : style.color);
        const background = behind(element);
        const one = luminance(over(ink, background)), other = luminance(background);
        found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), text.slice(0, 60)]);
    }
    return found;
}"""
# NetBox's column of buttons, and the search of Django's lists.
OF_OTHERS = re.compile(r'sort=actions"|id="searchbar"')
CREDENTIAL = {'name': 'Of the looks', 'type': 'bearer', 'secret': 's3cret', 'hosts': ['receiver.example']}
# Its words are as long as German ones.
LONG_NAME = 'Inventar der Niederlassungen in Berlin und Brandenburg'
TAG = re.compile(r'</?(div|span|a|p)\b')
# Black on black is below, the quiet grey of hints above.
UNREADABLE = 2.0
# Their first columns fit a usual window. On a telephone they scroll.
LISTS = (
    'plugins/webhooks/webhooks/',
    'plugins/webhooks/deliveries/',
    'plugins/webhooks/events/',
    'admin/webhooks/webhook/',
    'admin/webhooks/delivery/',
    'admin/webhooks/event/',
)
COLUMNS_CUT = """() => [...document.querySelectorAll('.table-responsive, .results')]
    .map(list => list.scrollWidth - list.clientWidth).filter(pixels => pixels > 0)"""
BEYOND_THE_EDGE = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'


@pytest.fixture
def ids(api, receiver) -> Iterator[dict[str, object]]:
    receiver.answers('/hook', 500)
    webhook = add_webhook(api, receiver.url('/hook'), name=LONG_NAME, max_attempts=1, secret='whsec_' + 'A' * 43 + '=')
    site = add_site(api)
    delivery = delivery_of(api, site, 'failed')
    api.post(f'plugins/webhooks/webhooks/{webhook["id"]}/backfill/', filter=f'id={site["id"]}')
    credential = api.post('plugins/webhooks/credentials/', **CREDENTIAL)
    yield {
        'webhook': webhook['id'],
        'delivery': delivery['id'],
        'event': delivery['event']['id'],
        'job': delivery['uuid'],
        'site': site['id'],
        'feed': add_webhook(api, '')['id'],
        'credential': credential['id'],
    }
    api.delete(f'plugins/webhooks/credentials/{credential["id"]}/')


def look_at(person: Person, pages: Iterable[str], ids: dict[str, object], *, again: bool = False) -> list[str]:
    """Return what is wrong. `again`: a look in other colours, which names and roles do not depend on."""
    found = []
    for page in pages:
        person.visit(page.format(**ids))
        if (beyond := person.page.evaluate(BEYOND_THE_EDGE)) > 0:
            found.append(f'{page}: {beyond} pixels beyond the edge')
        for contrast, text in person.page.evaluate(CONTRASTS):
            if contrast < UNREADABLE:
                found.append(f'{page}: {text!r} has a contrast of {contrast:.1f}')
            if TAG.search(text):
                found.append(f'{page}: {text!r} is HTML that was to be shown as such')
        if page.startswith('admin/') or not again:
            found += [f'{page}: {barrier}' for barrier in barriers(person.page, again=again)]
    return found


def barriers(page: Page, *, again: bool) -> list[str]:
    """Leave out NetBox's colours, and NetBox's and Django's parts of each page. `again`: look at colours alone."""
    rules = {} if '/admin/' in page.url else {'color-contrast': {'enabled': False}}
    options = {'resultTypes': ['violations']} | ({'runOnly': ['color-contrast']} if again else {'rules': rules})
    violations = Axe().run(page, options=options).response['violations']
    return [
        f'{one["id"]}: {" ".join(map(str, node["target"]))} {node["html"][:120]}'
        for one in violations
        if one['impact'] in ('serious', 'critical')
        for node in one['nodes']
        if not OF_OTHERS.search(node['html'])
    ]


def test_every_page_looks_right_light_and_wide(admin, ids):
    assert look_at(admin, PAGES + WIDE_PAGES, ids) == []


def test_every_page_looks_right_dark_narrow_and_in_german(admin, person: Callable[..., Person], ids):
    admin = person('admin', viewport={'width': 390, 'height': 844}, locale='de-DE')
    admin.visit('')
    admin.page.locator('.color-mode-toggle.hide-theme-dark').first.click()
    expect(admin.page.locator('[data-bs-theme=dark]').first).to_be_attached()
    admin.visit('admin/')
    admin.page.locator('.theme-toggle').first.click()
    expect(admin.page.locator('html[data-theme=dark]')).to_be_attached()
    assert look_at(admin, PAGES, ids, again=True) == []


def test_the_first_columns_of_each_list_fit_a_window_in_german(admin, person: Callable[..., Person], ids):
    admin = person('admin', viewport={'width': 1440, 'height': 900}, locale='de-DE')
    for page in LISTS:
        admin.visit(page)
        expect(admin.page.locator('tbody tr').first).to_be_visible()
        assert admin.page.evaluate(COLUMNS_CUT) == [], page
