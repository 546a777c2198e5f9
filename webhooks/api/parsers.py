"""What clients send."""

from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.utils.translation import gettext as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.response import Response


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE


class FlatJSONParser(JSONParser):
    """JSON that is nested more deeply than Python reads is a mistake of the client's."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError:
            raise ParseError(_('The JSON is nested too deeply.')) from None


PARSERS = (FlatJSONParser, MultiPartParser)


class ParsingMixin:
    """Views that answer a request which Django does not read by saying so, not as a failure of the server."""

    parser_classes = PARSERS

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, RequestDataTooBig):
            exc = TooLarge(str(exc))
        elif isinstance(exc, SuspiciousOperation):
            exc = ParseError(str(exc))
        return super().handle_exception(exc)
