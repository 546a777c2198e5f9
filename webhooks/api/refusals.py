"""Answers for what Django, a worker or another request refuses."""

from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.utils.translation import gettext as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.response import Response

from ..exceptions import Busy
from ..models.concurrent import ChangedMeanwhile


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE


class TryAgain(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    wait = 5


# RequestDataTooBig is a SuspiciousOperation.
ANSWERS: dict[type[Exception], type[APIException]] = {
    Busy: TryAgain,
    ChangedMeanwhile: Conflict,
    RequestDataTooBig: TooLarge,
    SuspiciousOperation: ParseError,
}


class FlatJSONParser(JSONParser):
    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError:
            raise ParseError(_('The JSON is nested too deeply.')) from None


class RefusingMixin:
    parser_classes = (FlatJSONParser, MultiPartParser)

    def handle_exception(self, exc: Exception) -> Response:
        answers = (answer for kind, answer in ANSWERS.items() if isinstance(exc, kind))
        return super().handle_exception(next((answer(str(exc)) for answer in answers), exc))
