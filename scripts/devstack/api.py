import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from devstack.failure import Failure


@dataclass
class Api:
    """`base` ends with a slash."""

    base: str
    authorization: str = ''

    def log_in(self, username: str, password: str) -> None:
        token = self.post('users/tokens/provision/', username=username, password=password)
        self.authorization = f'Bearer nbt_{token["key"]}.{token["token"]}'

    def get(self, path: str, **parameters: Any) -> Any:
        query = f'?{urllib.parse.urlencode(parameters)}' if parameters else ''
        return self._call('GET', path + query)

    def post(self, path: str, **data: Any) -> Any:
        return self._call('POST', path, data)

    def patch(self, path: str, **data: Any) -> Any:
        return self._call('PATCH', path, data)

    def post_all(self, path: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One request is one transaction."""
        return self._call('POST', path, objects)

    def patch_all(self, path: str, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each change has the `id` of its object."""
        return self._call('PATCH', path, changes)

    def delete(self, path: str) -> None:
        self._call('DELETE', path)

    def _call(self, method: str, path: str, data: Any = None) -> Any:
        headers = {'Accept': 'application/json', 'Content-Type': 'application/json'}
        if self.authorization:
            headers['Authorization'] = self.authorization
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f'{self.base}api/{path}', body, headers, method=method)
        return json.loads(_answer(request) or b'null')


def _answer(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        text = error.read(2000).decode(errors='replace')
        raise Failure(f'{request.method} {request.full_url} was answered {error.code}: {text}') from None
