"""The endpoints that describe payloads: GET …/webhooks/<id>/schema/ and GET …/webhooks/asyncapi/"""

import hashlib
from typing import Any

from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ..payload import asyncapi, formats, json_schema

NOT_CHANGED = OpenApiResponse(description=_('The document is still that of If-None-Match.'))


class SchemasMixin:
    """Adds the endpoints `schema/` and `asyncapi/` to the viewset of webhooks."""

    @extend_schema(responses={200: OpenApiTypes.OBJECT, 304: NOT_CHANGED})
    @action(detail=True, methods=['get'], url_path='schema')
    def body_schema(self, request: Request, pk: str) -> HttpResponseBase:
        """Show the JSON Schema of the webhook's bodies, unless a body template makes them."""
        return _tagged(request, json_schema.of_types(self.get_object()))

    @extend_schema(responses={200: OpenApiTypes.OBJECT, 304: NOT_CHANGED}, filters=True)
    @action(detail=False, methods=['get'], pagination_class=None)
    def asyncapi(self, request: Request) -> HttpResponseBase:
        """Show an AsyncAPI document of the webhooks."""
        found = self.filter_queryset(self.get_queryset())
        return _tagged(request, asyncapi.document(found.order_by('pk')))


def _tagged(request: Request, document: dict[str, Any]) -> HttpResponseBase:
    """Return the document with an ETag, or 304 if the client has it already."""
    etag = quote_etag(hashlib.sha256(formats.dumps(document).encode()).hexdigest())
    answer = Response(document, headers={'ETag': etag})
    return get_conditional_response(request, etag=etag, response=answer)
