"""The admin's page of credentials."""

from collections.abc import Sequence

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..forms.masked import EnteredAgainMixin, SecretMixin
from ..models import Credential, Webhook
from ..presentation.credential_fields import shown_in
from .base import BaseForm, LoggedAdmin
from .display import column


class CredentialForm(BaseForm, EnteredAgainMixin, SecretMixin):
    """Adds or changes a credential. A blank secret keeps the stored one."""

    class Meta:
        model = Credential
        fields = shown_in('admin')
        widgets = {
            'secret': forms.PasswordInput(
                render_value=False, attrs={'class': 'vTextField wh-wide', 'autocomplete': 'new-password'}
            ),
        }


class CredentialAdmin(LoggedAdmin):
    """Lists, adds, changes and deletes credentials."""

    form = CredentialForm
    masked_fields = ('secret',)
    list_display = ('name', 'type', 'where', 'valid_until', 'description')
    list_filter = ('type',)
    search_fields = ('name', 'description')

    where = column(_('Hosts'), lambda credential: ', '.join(credential.hosts))

    def get_deleted_objects(self, objs: Sequence[Credential], request: HttpRequest) -> tuple[list, dict, set, list]:
        """Name the webhooks that use these credentials as a reason not to delete them."""
        users = Webhook.objects.filter(credential__in=[credential.pk for credential in objs])
        counts = {Credential._meta.verbose_name_plural: len(objs)}
        return [str(credential) for credential in objs], counts, set(), [str(webhook) for webhook in users]
