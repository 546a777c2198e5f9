"""What stands in the docs as files and commands, so that tests can use it as a reader would."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / 'docs'
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str = '') -> list[str]:
    """Return the blocks of code of a page, in their order; those without a language are commands and plain files."""
    return [text for name, text in BLOCK.findall((DOCS / page).read_text()) if name == language]
