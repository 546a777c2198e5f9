"""Definitions: which file of a NetBox data source is applied, and with whose rights."""

from core.models import DataSource
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Model
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from netbox.models import NetBoxModel
from netbox.models.features import JobsMixin

from .credential import Credential
from .webhook import Webhook


class Definition(JobsMixin, NetBoxModel):
    """Names a file of a data source that keeps webhooks and credentials (as_code/definitions.py)."""

    name = models.CharField(_('name'), max_length=100, unique=True)
    data_source = models.ForeignKey(
        DataSource, on_delete=models.PROTECT, related_name='+', verbose_name=_('data source')
    )
    # With the source's name and a line it fits `managed_in`.
    path = models.CharField(
        _('path'), max_length=300, help_text=_("The file's path in the data source, such as netbox/webhooks.yaml.")
    )
    prune = models.BooleanField(
        _('prune'),
        default=False,
        help_text=_('Also delete what earlier files of the same source made, and this one does not name.'),
    )
    apply_on_sync = models.BooleanField(
        _('apply on sync'),
        default=False,
        help_text=_(
            'Apply the file each time the data source is synced, with the permissions of the user who last saved this. '
            'Anyone who can write to the file can then change webhooks and credentials.'
        ),
    )
    applied_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name='+',
        verbose_name=_('last saved by'),
    )

    docs_url = ''
    clone_fields = ('data_source', 'prune', 'apply_on_sync')

    class Meta:
        ordering = ('name',)
        verbose_name = _('definition')
        verbose_name_plural = _('definitions')

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a definition whose user could not apply it, or not read its source. Raises ValidationError."""
        super().clean()
        if self.applied_by is None:
            return
        if lacking := self.lacking(self.applied_by):
            raise ValidationError(lacking)
        sources = DataSource.objects.restrict(self.applied_by, 'view')
        if self.data_source_id and not sources.filter(pk=self.data_source_id).exists():
            raise ValidationError({'data_source': _('This data source does not exist, or you may not view it.')})

    def lacking(self, user: Model) -> str:
        """Return which permissions the user lacks to apply it, for people. '' if none."""
        actions = ('add', 'change', 'delete') if self.prune else ('add', 'change')
        named = [f'webhooks.{action}_{model._meta.model_name}' for model in (Webhook, Credential) for action in actions]
        lacking = [name for name in named if not user.has_perm(name)]
        return gettext('You need these permissions: {names}').format(names=', '.join(lacking)) if lacking else ''
