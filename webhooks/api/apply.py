"""The endpoint that applies a document: POST /api/plugins/webhooks/apply/"""

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from netbox.api.authentication import TokenWritePermission
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..as_code.apply import apply, plan
from ..as_code.document import DocumentError, of
from .endpoints import read
from .refusals import RefusingMixin


class ApplyQuerySerializer(serializers.Serializer):
    """The options of applying a document."""

    plan = serializers.BooleanField(default=False, help_text=_('Only say what would be done.'))
    prune = serializers.BooleanField(
        default=False, help_text=_('Also delete what earlier documents of this source made, and this does not name.')
    )


@extend_schema_serializer(component_name='WebhooksChange')
class ChangeSerializer(serializers.Serializer):
    """A change to a webhook or a credential."""

    section = serializers.CharField()
    name = serializers.CharField()
    outcome = serializers.ChoiceField(choices=['created', 'changed', 'deleted'])
    fields_changed = serializers.DictField(
        source='fields', help_text=_('Before and after, by field. Secrets are masked.')
    )


@extend_schema_serializer(component_name='WebhooksApplied')
class AppliedSerializer(serializers.Serializer):
    """The changes of a document."""

    changed = serializers.BooleanField()
    changes = ChangeSerializer(many=True)


class ApplyView(RefusingMixin, APIView):
    """Applies a document of webhooks and credentials, all or nothing, with the caller's permissions."""

    permission_classes = [IsAuthenticated, TokenWritePermission]

    @extend_schema(parameters=[ApplyQuerySerializer], request=OpenApiTypes.OBJECT, responses=AppliedSerializer)
    def post(self, request: Request) -> Response:
        """Apply a document, or plan it."""
        wanted = read(ApplyQuerySerializer, request.query_params)
        run = plan if wanted['plan'] else apply
        try:
            changes = run([of(request.data)], prune=wanted['prune'], request=request)
        except DocumentError as error:
            reason = f'{error.place}: {error.reason}' if error.place else error.reason
            raise ValidationError({error.field or 'detail': [reason]}) from None
        return Response(AppliedSerializer({'changed': bool(changes), 'changes': changes}).data)
