"""NetBox's form of a definition."""

from core.models import DataSource
from django.utils.translation import gettext_lazy as _
from netbox.forms import NetBoxModelForm
from utilities.forms.fields import DynamicModelChoiceField
from utilities.forms.rendering import FieldSet

from ..models import Definition


class DefinitionForm(NetBoxModelForm):
    """Adds or changes a definition."""

    data_source = DynamicModelChoiceField(label=_('Data source'), queryset=DataSource.objects.all())
    fieldsets = (FieldSet('name', 'data_source', 'path', 'prune', 'apply_on_sync', 'tags'),)

    class Meta:
        model = Definition
        fields = ('name', 'data_source', 'path', 'prune', 'apply_on_sync', 'tags')
