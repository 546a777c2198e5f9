"""What stands in the documents as files and commands, so that tests can use it as a reader would."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(DOCS.rglob('*.md'))]
COMMANDS = 'sh'
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str = COMMANDS) -> list[str]:
    """Return the blocks of code of a page of docs/, in their order."""
    return [text for name, text in all_blocks(DOCS / page) if name == language]


def block(page: str, language: str, part: str) -> str:
    """Return the one block of a page of docs/ that has this in it."""
    (found,) = [text for text in blocks(page, language) if part in text]
    return found


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of each block; those without a language are output, drawings and plain files."""
    return BLOCK.findall(page.read_text())
