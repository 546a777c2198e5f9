import re

from django.utils.translation import gettext as _

from ..choices import FormatChoices
from ..exceptions import DefinitionError
from .definition import Definition
from .templates import check_template

# No line breaks: some servers read a folded header as two headers.
CONTENT_TYPE = re.compile(r'[\w!#$&^.+-]+/[\w!#$&^.+-]+([ \t]*;[ \t]*[\w.-]+=("[^"\x00-\x1f]*"|[\w.+-]+))*', re.ASCII)
FORM = 'application/x-www-form-urlencoded'


def is_form(content_type: str) -> bool:
    return content_type.partition(';')[0].strip().lower() == FORM


def check_content_type(definition: Definition) -> None:
    """A media type (RFC 9110, 8.3.1)."""
    if not CONTENT_TYPE.fullmatch(definition.http_content_type):
        raise DefinitionError('http_content_type', _('Enter a content type such as application/json.'))


def check_format(definition: Definition) -> None:
    if definition.payload_format == FormatChoices.CLOUDEVENTS and is_form(definition.http_content_type):
        raise DefinitionError(
            'http_content_type', _('CloudEvents are JSON. Choose a JSON content type, such as application/json.')
        )
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
    if definition.change_set and definition.batch:
        raise DefinitionError('change_set', _('A change set holds all that a batch would: choose one of the two.'))
    if definition.change_set and definition.latest_only:
        raise DefinitionError('change_set', _('“Change set” sends every change, “Latest only” does not: choose one.'))


def check_body_template(definition: Definition) -> None:
    check_template('body_template', definition.body_template)
