import re
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
URLS = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['urls']
SOURCE = URLS['Source']
HREF = re.compile(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="?([^"\s>]+)')


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return [page for page in sorted(site.rglob('*.html')) if page.name != '404.html']


def links(page: Path) -> set[str]:
    return {unescape(link) for link in HREF.findall(page.read_text())}


def leads_somewhere(page: Path, link: str) -> bool:
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= 'index.html'
    if not target.is_file():
        return False
    return not parts.fragment or re.search(rf'\bid="?{re.escape(parts.fragment)}["\s>]', target.read_text()) is not None


def test_every_page_of_the_docs_is_on_it(site: Path):
    there = {str(page.parent.relative_to(site)) for page in pages(site)}
    docs = ROOT / 'docs'
    assert {str(page.relative_to(docs).with_suffix('')) for page in docs.rglob('*.md')} <= there
    assert {'changelog', 'compatibility', 'contributing', 'reporting'} <= there


def test_the_readme_is_its_front_door(site: Path):
    assert 'Every committed change is sent' in (site / 'index.html').read_text()


def test_its_pages_name_their_address(site: Path):
    page = (site / 'payload' / 'index.html').read_text()
    assert f'<link rel="canonical" href="{URLS["Documentation"]}payload/">' in page


def test_each_link_leads_somewhere(site: Path):
    found = {(page, link) for page in pages(site) for link in links(page) if '//' not in link}
    assert len(found) > 200
    assert [(page, link) for page, link in found if not leads_somewhere(page, link)] == []


def test_a_link_that_leads_nowhere_is_noticed(site: Path):
    page = site / 'payload' / 'index.html'
    assert leads_somewhere(page, '../templates/#conditions')
    assert not leads_somewhere(page, '../templates/#no-such-heading')
    assert not leads_somewhere(page, '../no-such-page/')


def test_links_into_the_repository_name_files_that_are_there(site: Path):
    start = f'{SOURCE}/blob/main/'
    found = {link.removeprefix(start) for page in pages(site) for link in links(page) if link.startswith(start)}
    assert 'contrib/worker_alive.py' in found
    assert [name for name in found if not (ROOT / name).exists()] == []


def test_no_page_loads_anything_from_others(site: Path):
    loaded = re.compile(r'<(?:img|script|iframe)\b[^>]*?\bsrc="?https?:|<link rel="stylesheet" href="https?:')
    assert [page for page in pages(site) if loaded.search(page.read_text())] == []
