"""Checks the fields of a body: content type, format, change set and template."""

import re
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from ..choices import FormatChoices
from ..exceptions import DefinitionError
from .definition import Definition
from .secret import reveal
from .templates import check_template

# Without line breaks: some servers would read a folded header as two headers.
CONTENT_TYPE = re.compile(r'[\w!#$&^.+-]+/[\w!#$&^.+-]+([ \t]*;[ \t]*[\w.-]+=("[^"\x00-\x1f]*"|[\w.+-]+))*', re.ASCII)
EXAMPLE_OF_CHANGE_SET = '{% for change in changes %}{{ change.data.name }}{% endfor %}'
# The fields that may have templates.
TEMPLATES = ('payload_url', 'additional_headers', 'body_template')
# The content type of HTML forms.
FORM_TYPE = 'application/x-www-form-urlencoded'
# How REST and imports write that a switch is off.
OFF_WORDS = frozenset({'', '0', 'f', 'false', 'n', 'no', 'none', 'null', 'off'})


def is_form(content_type: str) -> bool:
    """Return whether this is the content type of an HTML form. Parameters such as charset do not matter."""
    return content_type.partition(';')[0].strip().lower() == FORM_TYPE


def check_content_type(definition: Definition) -> None:
    """Raise DefinitionError unless the content type is a media type (RFC 9110, 8.3.1)."""
    if not CONTENT_TYPE.fullmatch(definition.http_content_type):
        raise DefinitionError('http_content_type', _('Enter a content type such as application/json.'))


def check_format(definition: Definition) -> None:
    """Raise DefinitionError if format, content type, method and body template do not fit each other."""
    only_json = definition.payload_format in (FormatChoices.CLOUDEVENTS, FormatChoices.THIN)
    if only_json and is_form(definition.http_content_type):
        reason = _('This payload format is JSON. Choose a JSON content type, such as application/json.')
        raise DefinitionError('http_content_type', reason)
    if definition.payload_format != FormatChoices.DEFAULT and definition.body_template:
        raise DefinitionError(
            'body_template',
            _(
                'A body template works only with the default payload format. Choose that format, or '
                'remove the template.'
            ),
        )
    if definition.http_method == 'GET' and definition.body_template:
        raise DefinitionError(
            'body_template', _('A GET request has no body. Remove the template, or choose another HTTP method.')
        )


def check_change_set(definition: Definition) -> None:
    """Raise DefinitionError if the webhook sends change sets, and also only the latest changes, or quiet objects."""
    if definition.change_set and definition.latest_only:
        raise DefinitionError('change_set', _('“Change set” sends every change, “Latest only” does not: choose one.'))
    if definition.change_set and definition.quiet is not None:
        raise DefinitionError(
            'quiet', _('“Change set” sends a whole transaction, “Send when quiet for” an object: choose one.')
        )


def refuse_batch(sent: Mapping[str, Any]) -> None:
    """Raise DefinitionError if somebody switches `batch` on, a field of 1.0.0. Off, as in old exports, it says nothing.

    `sent`: the fields of a webhook as they were sent, unchecked.
    """
    if str(sent.get('batch')).strip().lower() not in OFF_WORDS:
        raise DefinitionError(
            'batch', _('Batches no longer exist. Switch on “Change set” instead: then the changes are in “changes”.')
        )


def check_body_template(definition: Definition) -> None:
    """Raise DefinitionError if the body template has a syntax error or is too long."""
    check_template('body_template', definition.body_template)


def check_data(definition: Definition) -> None:
    """Raise DefinitionError for a template that reads `data`, if the webhook sends change sets: they have a list."""
    if not definition.change_set:
        return
    for field in TEMPLATES:
        names = check_template(field, reveal(field, getattr(definition, field)))
        if 'data' in names and 'changes' not in names:
            reason = _('A change set has no “data”, but a list of changes. Example: {example}')
            raise DefinitionError(field, reason.format(example=EXAMPLE_OF_CHANGE_SET))
