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
    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError:
            raise ParseError(_('The JSON is nested too deeply.')) from None


PARSERS = (FlatJSONParser, MultiPartParser)


class ParsingMixin:
    """Answers 400 or 413 instead of 500 if Django refuses the request."""

    parser_classes = PARSERS

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, RequestDataTooBig):
            exc = TooLarge(str(exc))
        elif isinstance(exc, SuspiciousOperation):
            exc = ParseError(str(exc))
        return super().handle_exception(exc)
