"""Reads ready definitions of webhooks from the TOML files here. They fill the form of a new webhook."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A ready definition for a kind of receiver.

    `fields`: values by the names of a webhook's fields. `url`: an example. `asks`: more fields for the user to enter.
    """

    name: str
    label: str
    url: str
    fields: dict[str, Any]
    asks: tuple[str, ...] = ()

    @property
    def is_signed(self) -> bool:
        """Return whether the definition signs requests by hmac(), so that the webhook needs a secret."""
        return 'hmac(' in self.fields.get('additional_headers', '')


@cache
def all_presets() -> dict[str, Preset]:
    """Return {name: preset}, by name. The name is that of the file. The files are read once a process."""
    paths = sorted(Path(__file__).parent.glob('*.toml'))
    return {path.stem: Preset(path.stem, **tomllib.loads(path.read_text())) for path in paths}
