import dataclasses
from typing import Any

import pytest

from webhooks import conf


def change_settings(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    monkeypatch.setattr(conf, '_settings', dataclasses.replace(conf.get(), **values))
