"""The docs' links lead somewhere, and the pictures and files that they name are there."""

import re
import time
from pathlib import Path

import pytest

from webhooks.security import signing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(DOCS.glob('*.md'))]
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
# In architecture.md without webhooks/ in front.
OURS = re.compile(r'(?<![\w/.-])webhooks/([\w/]+\.py|[\w/]+/(?=`))')
ARCHITECTURE = re.compile(r'(?<![\w/.-])(?:webhooks/)?([a-z_/]+\.py)')


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition('#')
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if '://' not in link]
    assert [link for link in links if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    pattern = ARCHITECTURE if page.name == 'architecture.md' else OURS
    assert [name for name in pattern.findall(page.read_text()) if not (ROOT / 'webhooks' / name).exists()] == []


def test_the_readmes_code_verifies_a_signature_and_refuses_a_request_without_one():
    section = (ROOT / 'README.md').read_text().split('## Verify a signature')[1]
    names: dict = {}
    exec(re.search(r'```python\n(.*?)```', section, re.DOTALL)[1], names)
    verify, body, now = names['verify'], b'{"name": "\xc3\xa9"}', int(time.time())

    def headers(moment: int) -> dict[str, str]:
        signature = signing.standard([names['SECRET']], 'an-id', moment, body)
        other = 'v1a,b3RoZXI='  # of a secret that is replaced
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


def test_every_logger_is_in_the_operations_page():
    """By its own name: a program that watches one logger needs to know it."""
    files = (ROOT / 'webhooks').rglob('*.py')
    used = {name for file in files for name in re.findall(r"getLogger\('(.+?)'\)", file.read_text())}
    listed = (DOCS / 'operations.md').read_text().partition('| logger |')[2].partition('\n\n')[0]
    assert used == set(re.findall(r'`(webhooks\.\w+)`', listed))
    assert 'webhooks.delivery' in used
