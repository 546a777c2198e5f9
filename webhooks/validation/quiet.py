"""Checks how long a webhook's changes wait for quiet."""

from django.utils.translation import gettext as _

from .. import conf
from ..constants import QUIET_MAX_FACTOR
from ..exceptions import DefinitionError
from .definition import Definition


def check(definition: Definition) -> None:
    """Raise DefinitionError unless both times fit each other and the setting `expire_after`."""
    if definition.quiet is None:
        if definition.quiet_max is not None:
            raise DefinitionError('quiet_max', _('Enter “Send when quiet for” too, or leave this blank.'))
        return
    if definition.quiet_max is not None and definition.quiet_max < definition.quiet:
        raise DefinitionError(
            'quiet_max', _('Enter {seconds} or more: no less than the quiet time.').format(seconds=definition.quiet)
        )
    longest, limit = definition.quiet_max or QUIET_MAX_FACTOR * definition.quiet, conf.get().expire_after
    if longest >= limit:
        raise DefinitionError(
            'quiet_max',
            _('It is {longest} seconds now, but deliveries expire after {limit} (expire_after). Enter less.').format(
                longest=longest, limit=limit
            ),
        )
