import re
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import setup

ROOT = Path(__file__).parent
SOURCE = re.search(r'^Source = "(.+)"$', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)[1]
VERSION = re.search(r"VERSION = '(.+)'", (ROOT / 'webhooks' / 'version.py').read_text())[1]


def absolute(match: re.Match) -> str:
    """A package index shows the README without the files beside it."""
    return f'{match[1]}{SOURCE}/{"raw" if match[2].endswith((".png", ".svg")) else "blob"}/v{VERSION}/{match[2]}'


README = re.sub(r'(\]\(|src="|href=")(?!https?:|#|/)([^)"\s]+)', absolute, (ROOT / 'README.md').read_text())
# What an earlier build left here would go into the next one: files that were deleted since, migrations too, from
# `build/` into the wheel, and whatever the list in `*.egg-info` names into the archive.
BUILD = TemporaryDirectory(prefix='netbox-webhooks-')
# All else that the package is stands in pyproject.toml.
setup(
    long_description=README,
    long_description_content_type='text/markdown',
    options={'build': {'build_base': BUILD.name}, 'egg_info': {'egg_base': BUILD.name}},
)
