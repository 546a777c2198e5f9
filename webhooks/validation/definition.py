"""The contract of the checks: the fields that they read, and how their errors are collected."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..exceptions import DefinitionError


class Definition(Protocol):
    """A webhook's fields, as checks read them. Times are in seconds; `kinds` are values of KindChoices."""

    payload_url: str
    http_method: str
    http_content_type: str
    payload_format: str
    additional_headers: Any
    body_template: str
    conditions: Any
    filters: Any
    ordered: bool
    change_set: bool
    latest_only: bool
    quiet: int | None
    quiet_max: int | None
    success_conditions: Any
    credential: Any
    expand: list[str]
    fields: Any
    omit: Any
    include_snapshots: bool
    include_components: bool
    include_config_contexts: bool
    only_if_changed: list[str]
    secret: Any
    ssl_verification: bool
    ca_file_path: str
    client_cert_path: str
    client_key_path: str
    timeout: int | None
    kinds: list[str]
    has_new_secret: bool


def errors_of[T](checked: T, checks: Iterable[Callable[[T], None]]) -> dict[str, str]:
    """Run the checks, and return {field: reason}. Each check raises DefinitionError for its first finding.

    A field shows only its first error.
    """
    found: dict[str, str] = {}
    for check in checks:
        try:
            check(checked)
        except DefinitionError as error:
            found.setdefault(error.field, str(error))
    return found
