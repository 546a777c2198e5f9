"""The files and commands that a reader of the docs would copy."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(DOCS.rglob('*.md'))]
COMMANDS = 'sh'
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str = COMMANDS) -> list[str]:
    return [text for name, text in all_blocks(DOCS / page) if name == language]


def block(page: str, language: str, part: str) -> str:
    (found,) = [text for text in blocks(page, language) if part in text]
    return found


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of each block. Output, drawings and plain files have no language."""
    return BLOCK.findall(page.read_text())
