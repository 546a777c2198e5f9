import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from html.parser import HTMLParser
from itertools import chain

import pytest
from babel.messages.pofile import read_po
from dcim.models import Site
from django.contrib.admin import site as admin_site
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.log import change_set, delivery, event

from devstack.folders import CHECKOUT
from webhooks import urls
from webhooks.choices import StatusChoices
from webhooks.models import Backfill, Credential, Health
from webhooks.presentation import credential_fields
from webhooks.presentation.fields import NAMES

pytestmark = pytest.mark.usefixtures('saves')

LOCALE = CHECKOUT / 'webhooks' / 'locale'
# re.escape() leaves these.
PLACEHOLDER = re.compile(r'%\\\(\w+\\\)s|%d|\\\{\w*\\\}')
NETBOX = ('/dcim/sites/', '/dcim/sites/add/', '/dcim/sites/import/')
# Pages quote bodies and headers in these.
QUOTED = ('script', 'style', 'pre', 'code', 'textarea')
JOBS = '/admin/webhook-backend-status/'
# NetBox, Django and django-rq do not translate these.
THEIRS = re.compile(r'Search|Are you sure you want to delete .*|Deleting the .*')
OF_DJANGO_RQ = ('Created', 'Name', 'Status', 'Workers')
# NetBox and Django make these pages for any object.
NETBOXS = ('_changelog', '_history', '_journal')
SHOWN = ('title', 'aria-label', 'placeholder', 'alt')


class Texts(HTMLParser):
    """Collects tooltips and labels too."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.is_quoting = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_quoting = tag in QUOTED
        for name, value in attrs:
            if name in SHOWN and value:
                self._add(value)

    def handle_endtag(self, tag: str) -> None:
        self.is_quoting = False

    def handle_data(self, data: str) -> None:
        if not self.is_quoting:
            self._add(data)

    def _add(self, text: str) -> None:
        if text := ' '.join(text.split()):
            self.found.add(text)


@pytest.fixture
def objects() -> list[Model]:
    """They cover each model and many states."""
    now, bern = timezone.now(), site(name='Bern')
    credential = Credential.objects.create(name='awx', type='bearer', secret='t0ken', hosts=['http://127.0.0.1:9'])
    busy = subscribe(NOWHERE, Site, name='busy', secret='s3cret', credential=credential, timeout=7, change_set=True)
    suspended = subscribe(NOWHERE, Site, name='cut off')
    others = [
        subscribe(NOWHERE, Site, name='halted', paused=True),
        subscribe(NOWHERE, Site, name='switched', enabled=False),
        subscribe(NOWHERE, name='idle'),
    ]
    failed = delivery(event(bern, test=True), busy, attempts=2, finished_at=now)
    waiting = delivery(event(bern), busy, status=StatusChoices.PENDING, created=now - timedelta(hours=3), due_at=now)
    held = delivery(event(bern), suspended, status=StatusChoices.PENDING)
    together = change_set([event(bern), event(bern)], busy, status=StatusChoices.DELIVERED)
    Health.objects.filter(webhook=suspended).update(suspended_since=now, probe_at=now, last_error='refused')
    types = [ContentType.objects.get_for_model(Site).pk]
    Backfill.objects.create(webhook=busy, state='running', object_types=types, total=9, started_at=now)
    fresh = event(bern, dispatched_at=None, backfill_for=busy.pk)
    return [busy, suspended, *others, credential, failed, waiting, held, *together, failed.event, fresh]


def names(patterns: list[URLPattern | URLResolver]) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from names(pattern.url_patterns)
        elif pattern.name:
            yield pattern.name


def addresses(objects: list[Model]) -> Iterator[str]:
    """Yield our pages' addresses, with the first object of each model."""
    ours = {f'plugins:webhooks:{name}' for name in names(urls.urlpatterns)}
    admins = {f'admin:{name}' for name in names(admin_site.get_urls()) if name.startswith(('index', 'webhooks_'))}
    mains = {name for name in ours | admins if not name.endswith(NETBOXS)}
    firsts = {one._meta.model_name: one for one in reversed(objects)}
    yield from (JOBS, f'{JOBS}queues/0/failed/')
    for name in sorted(mains):
        for arguments in ([], *([one.pk] for model, one in firsts.items() if model in name)):
            with suppress(NoReverseMatch):
                yield reverse(name, args=arguments)
    yield from (one.get_absolute_url() for one in objects)
    yield f'/dcim/sites/{Site.objects.get().pk}/webhooks/'


def texts(client: Client, language: str, addresses: Iterable[str]) -> dict[str, str]:
    """Return {text: the last page that shows it}."""
    found = {}
    for address in addresses:
        answer = client.get(address, headers={'accept-language': language})
        if answer.status_code == 200 and answer['content-type'].startswith('text/html'):
            found.update(dict.fromkeys(Texts(answer.content.decode()).found, address))
    return found


def forms(text: str | tuple[str, ...]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def messages(language: str) -> tuple[set[str], set[str]]:
    """Return (texts left in English by mistake, all translations)."""
    with (LOCALE / language / 'LC_MESSAGES' / 'django.po').open('rb') as file:
        found = [message for message in read_po(file, locale=language) if message.id]
    english = set(chain.from_iterable(forms(message.id) for message in found))
    translated = set(chain.from_iterable(forms(message.string) for message in found))
    return english - translated, translated


def pattern(texts: Iterable[str]) -> re.Pattern:
    """Placeholders match any text."""
    return re.compile('|'.join(PLACEHOLDER.sub('.+', re.escape(' '.join(text.split()))) for text in texts))


@pytest.mark.release
@pytest.mark.parametrize('language', ['de', 'ja'])
def test_no_text_of_our_pages_is_english(admin_pages, objects, language):
    """NetBox's own pages are not fully translated."""
    netbox = texts(admin_pages, language, NETBOX)
    found = texts(admin_pages, language, addresses(objects))
    shown = {text: page for text, page in found.items() if text not in netbox and not THEIRS.fullmatch(text)}
    untranslated, translated = map(pattern, messages(language))
    assert len([text for text in shown if translated.fullmatch(text)]) > 200
    sentence = re.compile(r'\b(the|is|are|of|with|this)\b')
    english = {text: page for text, page in shown.items() if untranslated.fullmatch(text) or sentence.search(text)}
    # The import names the fields.
    theirs = {text for text, page in shown.items() if page.startswith(JOBS) and text in OF_DJANGO_RQ}
    excused = {*NAMES, *credential_fields.NAMES, *theirs}
    assert {text: page for text, page in english.items() if text not in excused} == {}


@pytest.mark.parametrize(
    ('language', 'text'),
    [
        ('de', 'Geben Sie eine URL ein, die mit http:// oder https:// beginnt und einen Host hat.'),
        ('fr', 'Saisissez une URL qui commence par http:// ou https:// et contient un hôte.'),
    ],
)
def test_errors_of_the_rest_api_are_in_the_language_of_the_request(api_client, language, text):
    fields = {'name': 'New', 'object_types': ['dcim.site'], 'type_create': True, 'payload_url': 'ftp://a.example/'}
    answer = api_client.post('/api/plugins/webhooks/webhooks/', fields, headers={'accept-language': language})
    assert (answer.status_code, answer.json()) == (400, {'payload_url': [text]})
