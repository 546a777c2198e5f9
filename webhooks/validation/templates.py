"""Checks templates by trial, in the renderer's process."""

from django.utils.translation import gettext as _
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..constants import MAX_TEMPLATE_CHARS
from ..exceptions import DefinitionError
from ..interruptions import Shortage
from ..templating import renderer
from ..templating.errors import RenderError


def check_template(field: str, text: str) -> set[str]:
    """Return the names of the variables that a template reads, none of a text without template tags.

    Raise DefinitionError for `field` if the template is too long, or has a syntax error or an unknown filter, or if no
    renderer can be started.
    """
    if len(text) > MAX_TEMPLATE_CHARS:
        raise DefinitionError(
            field, _('A template can have no more than {limit} characters.').format(limit=MAX_TEMPLATE_CHARS)
        )
    if not JINJA2_TEMPLATE_RE.search(text):
        return set()
    try:
        return renderer.check(text)
    except (RenderError, Shortage) as error:
        raise DefinitionError(field, _('Invalid template: {error}').format(error=error)) from None
