"""Ready definitions for what others offer as an endpoint: each file has what a new webhook begins with.

They are filled in when a webhook is made, and are ordinary fields from then on.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preset:
    """`fields` are values by the names of a webhook's fields; `url` shows what the endpoint's URL looks like."""

    name: str
    label: str
    url: str
    fields: dict[str, Any]


@cache
def all_presets() -> dict[str, Preset]:
    """Return the presets by name."""
    paths = sorted(Path(__file__).parent.glob('*.toml'))
    return {path.stem: Preset(path.stem, **tomllib.loads(path.read_text())) for path in paths}
