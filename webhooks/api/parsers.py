"""What clients send."""

from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser, MultiPartParser


class FlatJSONParser(JSONParser):
    """JSON that is nested more deeply than Python reads is a mistake of the client's."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError:
            raise ParseError(_('The JSON is nested too deeply.')) from None


PARSERS = (FlatJSONParser, MultiPartParser)
