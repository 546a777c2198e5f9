"""Checks a webhook's timeout against the timeout of jobs."""

from django.conf import settings
from django.utils.translation import gettext as _
from netbox.settings_utils import parse_job_timeout

from ..exceptions import DefinitionError
from .definition import Definition


def check(definition: Definition) -> None:
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
