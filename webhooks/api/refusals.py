"""HTTP answers for refusals by Django, a worker or another request."""

from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.utils.translation import gettext as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.response import Response

from .. import exceptions
from ..exceptions import Busy, DefinitionError
from ..models.concurrent import ChangedMeanwhile


class Conflict(APIException):
    """The answer 409: the state does not allow it, or somebody else has just changed the object."""

    status_code = status.HTTP_409_CONFLICT


class TooLarge(APIException):
    """The answer 413: the body of the request is too long."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE


class TryAgain(APIException):
    """The answer 503, with Retry-After: too many others do the same at the moment."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    # Seconds, for Retry-After.
    wait = 5


class FlatJSONParser(JSONParser):
    """Parses JSON, and refuses it with 400 if it is nested too deeply for Python."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError:
            raise ParseError(_('The JSON is nested too deeply.')) from None


class RefusingMixin:
    """Gives a viewset this parser, and answers 400, 409, 413 or 503 in place of 500 to known errors."""

    parser_classes = (FlatJSONParser, MultiPartParser)

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(_answer(exc))


def _answer(error: Exception) -> Exception:
    match error:
        case Busy():
            return TryAgain(str(error))
        case ChangedMeanwhile() | DefinitionError(field=exceptions.STATE):
            return Conflict(str(error))
        case DefinitionError():
            return ValidationError({error.field: [str(error)]})
        case RequestDataTooBig():
            return TooLarge(str(error))
        case SuspiciousOperation():
            return ParseError(str(error))
        case _:
            return error
