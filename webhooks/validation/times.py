"""Checks a webhook's times: how long a request may take, and how long changes wait for quiet."""

from django.conf import settings
from django.utils.translation import gettext as _
from netbox.settings_utils import parse_job_timeout

from .. import conf
from ..constants import QUIET_MAX_FACTOR
from ..exceptions import DefinitionError
from .definition import Definition


def check_timeout(definition: Definition) -> None:
    """Raise DefinitionError unless the timeout is below RQ_DEFAULT_TIMEOUT, in seconds.

    A job must outlive its request.
    """
    limit = parse_job_timeout(settings.RQ_DEFAULT_TIMEOUT)
    if definition.timeout and limit is not None and definition.timeout >= limit:
        raise DefinitionError(
            'timeout',
            _('Must be less than {limit} seconds, the timeout of background jobs (RQ_DEFAULT_TIMEOUT).').format(
                limit=limit
            ),
        )


def check_quiet(definition: Definition) -> None:
    """Raise DefinitionError unless both times fit each other and the setting `expire_after`."""
    if definition.quiet is None:
        if definition.quiet_max is not None:
            raise DefinitionError('quiet_max', _('Enter “Send when quiet for” too, or leave this blank.'))
        return
    if definition.quiet_max is not None and definition.quiet_max < definition.quiet:
        raise DefinitionError(
            'quiet_max',
            _('Enter {seconds} or more: it cannot be less than the quiet time.').format(seconds=definition.quiet),
        )
    longest, limit = definition.quiet_max or QUIET_MAX_FACTOR * definition.quiet, conf.get().expire_after
    if longest >= limit:
        raise DefinitionError(
            'quiet_max',
            _('It is {longest} seconds now, but deliveries expire after {limit} (expire_after). Enter less.').format(
                longest=longest, limit=limit
            ),
        )
