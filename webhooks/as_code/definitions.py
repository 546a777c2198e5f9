"""Applies files of NetBox's data sources: after a sync of the source, or when somebody presses *Apply*.

It is a NetBox job with its log. It has the permissions of its user, checked object by object: the user who pressed
the button, or who last saved the definition.
"""

import uuid

from core.choices import JobNotificationChoices
from core.exceptions import JobFailed
from core.models import DataFile, DataSource, Job
from core.signals import post_sync
from django.core.exceptions import PermissionDenied
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.translation import gettext as _
from netbox.jobs import JobRunner
from users.models import User
from utilities.request import NetBoxFakeRequest, apply_request_processors

from ..models import Definition
from .apply import Change, apply, plan
from .document import Document, DocumentError, read


def plan_of(definition: Definition, request: HttpRequest) -> tuple[list[Change], str]:
    """Return the changes that the request's user would make by applying it, or why that user cannot apply it."""
    if lacking := definition.lacking(request.user):
        return [], lacking
    try:
        return plan([_document(definition)], prune=definition.prune, request=request), ''
    except (DocumentError, PermissionDenied) as error:
        return [], str(error)


def start(definition: Definition, user: User) -> Job:
    """Let a job apply it, with the user's permissions. Raises PermissionDenied if these never suffice."""
    if lacking := definition.lacking(user):
        raise PermissionDenied(lacking)
    return DefinitionJob.enqueue(instance=definition, user=user)


class DefinitionJob(JobRunner):
    """Applies a definition's file, all of it or nothing, and logs the changes."""

    class Meta:
        name = 'Webhooks: apply a definition'

    def run(self, *args, **kwargs) -> None:
        """Apply it with the permissions of the job's user. The job fails if it is refused."""
        user = self.job.user
        if user is None or not user.is_active:
            self._fail(_('The user who last saved the definition is deleted or inactive. Save it again.'))
        # NetBox's event rules copy the request, and custom fields that name objects ask for its address.
        request = NetBoxFakeRequest({
            'META': {}, 'COOKIES': {}, 'GET': {}, 'POST': {}, 'FILES': {}, 'method': 'POST', 'path': '',
            'path_info': '', 'user': user, 'id': uuid.uuid4(), 'build_absolute_uri': str,
        })  # fmt: skip
        definition = self.job.object
        try:
            with apply_request_processors(request):
                changes = apply([_document(definition)], prune=definition.prune, request=request)
        except (DocumentError, PermissionDenied) as error:
            self._fail(str(error))
        for line in [line for change in changes for line in change.lines()] or [_('Nothing to do.')]:
            self.logger.info(line)

    def _fail(self, reason: str) -> None:
        self.logger.error(reason)
        self.job.error = reason
        raise JobFailed


@receiver(post_sync, dispatch_uid='webhooks.definitions')
def apply_synced(instance: DataSource, **kwargs) -> None:
    """Let a job apply each definition of the synced source that asks for it."""
    for definition in Definition.objects.filter(data_source=instance, apply_on_sync=True):
        DefinitionJob.enqueue(
            instance=definition,
            user=definition.applied_by,
            notifications=JobNotificationChoices.NOTIFICATION_ON_FAILURE,
        )


def _document(definition: Definition) -> Document:
    place = f'{definition.data_source}: {definition.path}'
    found = DataFile.objects.filter(source=definition.data_source, path=definition.path).first()
    if found is None:
        raise DocumentError(_('the data source has no such file. Sync it, or correct the path'), place)
    if found.data_as_string is None:
        raise DocumentError(_('the file is empty or not UTF-8 text'), place)
    return read(found.data_as_string, place)
