"""Jinja2 templates, of whatever field."""

from django.utils.translation import gettext as _

from ..exceptions import DefinitionError
from ..templating import environment


def check_template(field: str, text: str) -> None:
    if not text:
        return
    try:
        environment.check(text)
    except environment.RenderError as error:
        raise DefinitionError(field, _('Invalid template: {error}').format(error=error)) from None
