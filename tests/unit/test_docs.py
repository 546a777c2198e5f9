import base64
import re
import runpy
import time
from pathlib import Path

import pytest

from benchmarks import sizes
from webhooks.presets import all_presets
from webhooks.security import signing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(DOCS.rglob('*.md'))]
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
# architecture.md leaves out the `webhooks/` in front.
# `webhooks/asyncapi/` is an address of the REST API.
OURS = re.compile(r'(?<![\w/.-])webhooks/(?!asyncapi/)([\w/]+\.py|[\w/]+/(?=`))')
ARCHITECTURE = re.compile(r'(?<![\w/.-])(?:webhooks/)?([a-z_/]+\.py)')


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {anchor(heading) for heading in headings}


def anchor(heading: str) -> str:
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def links(page: Path) -> list[str]:
    text = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return LINK.findall(text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition('#')
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_the_docs_leads_somewhere(page):
    assert [link for link in links(page) if '://' not in link and not leads_somewhere(page, link)] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_others_are_addresses(page):
    assert [link for link in links(page) if '://' in link and not re.fullmatch(r'https://[\w.-]+\.\w+/\S*', link)] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    pattern = ARCHITECTURE if page.name == 'architecture.md' else OURS
    assert [name for name in pattern.findall(page.read_text()) if not (ROOT / 'webhooks' / name).exists()] == []


def test_sizes_are_computed_from_what_was_measured():
    costs = sizes.measured((DOCS / 'benchmarks.md').read_text())
    table = '\n'.join(sizes.table(costs))
    assert len(table.splitlines()) > 4
    assert table in (DOCS / 'operations.md').read_text()


def test_the_receiver_in_contrib_verifies_a_signature_and_refuses_a_request_without_one(
    monkeypatch: pytest.MonkeyPatch,
):
    secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
    monkeypatch.setenv('WEBHOOK_SECRET', secret)
    names = runpy.run_path(str(ROOT / 'contrib/receiver_plain.py'))
    verify, body, now = names['verify'], b'{"name": "\xc3\xa9"}', int(time.time())

    def headers(moment: int) -> dict[str, str]:
        signature = signing.standard([secret], 'an-id', moment, body)
        other = 'v1a,b3RoZXI='  # from a replaced secret
        return {
            'webhook-id': 'an-id',
            'webhook-timestamp': str(moment),
            'webhook-signature': f'{other} {signature}',
        }

    assert verify(headers(now), body)
    assert not verify(headers(now), body + b' ')
    assert not verify(headers(now - 3600), body)
    assert not verify({**headers(now), 'webhook-timestamp': 'now'}, body)
    assert not verify({}, body)


def test_the_file_in_contrib_verifies_by_the_public_key(monkeypatch: pytest.MonkeyPatch):
    verify = runpy.run_path(str(ROOT / 'contrib/verify_public_key.py'))['verify']
    secret = f'whsk_{base64.b64encode(bytes(range(32))).decode()}'
    key, body, now = signing.public_key(secret), b'{"name": "\xc3\xa9"}', int(time.time())

    def headers(moment: int, *secrets: str) -> dict[str, str]:
        signature = signing.standard(secrets, 'an-id', moment, body)
        return {'webhook-id': 'an-id', 'webhook-timestamp': str(moment), 'webhook-signature': signature}

    assert verify(key, headers(now, 'whsec_' + 'A' * 32, secret), body)
    assert not verify(key, headers(now, secret), body + b' ')
    assert not verify(key, headers(now - 3600, secret), body)
    assert not verify(key, headers(now, f'whsk_{base64.b64encode(bytes(32)).decode()}'), body)
    assert not verify(key, headers(now, 'whsec_' + 'A' * 32), body)
    assert not verify(key, headers(now, secret) | {'webhook-signature': 'v1a,x'}, body)
    assert not verify(key, {}, body)


def test_every_product_is_in_the_table_of_receivers():
    products = re.findall(r'^## (.+)$', (DOCS / 'receivers/services.md').read_text(), re.MULTILINE)
    table = (DOCS / 'receivers.md').read_text().partition('| receiver |')[2].partition('\n\n')[0]
    assert len(products) > 10
    assert [one for one in products if f'(receivers/services.md#{anchor(one)})' not in table] == []


def test_troubleshooting_has_the_words_of_the_screen():
    page = (DOCS / 'troubleshooting.md').read_text()
    waits = re.findall(r"gettext_lazy\('(.+)'\)", (ROOT / 'webhooks/services/why_not_sent.py').read_text())
    assert waits
    assert [label for label in waits if f'| *{label}* |' not in page] == []
    engine = '\n'.join(path.read_text() for path in (ROOT / 'webhooks/engine').rglob('*.py'))
    errors = [one for one in re.findall(r'`(it[^`]*)`', page) if ' ' in one]
    assert len(errors) == 3
    assert [one for one in errors if one.removesuffix(' …') not in engine] == []


def test_every_picture_is_shown():
    shown = {Path(link).name for page in PAGES for link in LINK.findall(page.read_text())}
    assert {picture.name for picture in (DOCS / 'images').iterdir()} <= shown


def test_the_readme_names_the_oldest_netbox_that_is_tested():
    """`.ci/run` takes it from there."""
    (oldest,) = re.findall(r"min_version = '(.+)'", (ROOT / 'webhooks' / '__init__.py').read_text())
    assert f'also on the oldest, {oldest}.' in (ROOT / 'README.md').read_text()


def test_every_page_is_in_the_readme():
    listed = set(LINK.findall((ROOT / 'README.md').read_text()))
    assert {f'docs/{page.name}' for page in DOCS.glob('*.md')} <= listed


def test_every_product_has_a_preset():
    _top, *sections = (DOCS / 'receivers' / 'services.md').read_text().split('\n## ')
    named = [set(re.findall(r'preset\s+`(\w+)`', section)) for section in sections]
    assert all(named)
    assert set().union(*named) == all_presets().keys()


def test_every_logger_is_in_the_operations_page():
    """A program that watches a logger needs its exact name."""
    files = (ROOT / 'webhooks').rglob('*.py')
    used = {name for file in files for name in re.findall(r"getLogger\('(.+?)'\)", file.read_text())}
    listed = (DOCS / 'operations.md').read_text().partition('| logger |')[2].partition('\n\n')[0]
    assert used == set(re.findall(r'`(webhooks\.\w+)`', listed))
    assert 'webhooks.delivery' in used
