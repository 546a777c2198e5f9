"""A hook of MkDocs: root pages such as the README join the site, and links adapt."""

import re
import tomllib
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Names in the checkout and on the site.
PAGES = {
    'README.md': 'index.md',
    'CHANGELOG.md': 'changelog.md',
    'COMPATIBILITY.md': 'compatibility.md',
    'CONTRIBUTING.md': 'contributing.md',
    'SECURITY.md': 'reporting.md',
}
NAMES = {name: source for source, name in PAGES.items()}
LINK = re.compile(r'(\]\(|src="|href=")(?!https?:|#)([^)"#\s]+)')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Only pyproject.toml holds the addresses of the repository and the site."""
    urls = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['urls']
    config.repo_url, config.site_url = urls['Source'], urls['Documentation']
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    name = page.file.src_uri
    source = NAMES.get(name, f'docs/{name}')

    def fit(match: re.Match[str]) -> str:
        target = normpath(f'{dirname(source) or "."}/{match[2]}')
        return match[1] + link_from(name, target, config.repo_url)

    return LINK.sub(fit, markdown)


def link_from(page: str, target: str, repository: str) -> str:
    there = PAGES.get(target, target.removeprefix('docs/') if target.startswith('docs/') else None)
    return relpath(there, dirname(page) or '.') if there else f'{repository}/blob/main/{target}'
