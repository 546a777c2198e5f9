"""Ready definitions, which fill the form of a new webhook."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preset:
    """`fields` are by a webhook's field names; `url` is an example. `asks`: fields that are left to enter, beside
    those of each webhook.
    """

    name: str
    label: str
    url: str
    fields: dict[str, Any]
    asks: tuple[str, ...] = ()

    @property
    def is_signed(self) -> bool:
        return 'hmac(' in self.fields.get('additional_headers', '')


@cache
def all_presets() -> dict[str, Preset]:
    paths = sorted(Path(__file__).parent.glob('*.toml'))
    return {path.stem: Preset(path.stem, **tomllib.loads(path.read_text())) for path in paths}
