"""Processes of 1.0.0, with its package from this repository's history."""

import json
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from users.models import Token, User

from devstack.folders import CHECKOUT
from devstack.netbox import NetBox, WebServer
from support.elsewhere import using

# The last commit of 1.0.0.
COMMIT = '176b80db'
PATIENCE = 600
# From an answer to the next save. Without a pause, two savers keep the machine busy that the upgrade is to run on.
PAUSE_SECONDS = 0.5


def unpack(folder: Path) -> None:
    """Put 1.0.0's package into the folder. A clone without the history skips the test."""
    command = ['git', 'archive', COMMIT, 'webhooks']
    archive = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip('this clone lacks the history with 1.0.0')
    subprocess.run(['tar', '-x', '-C', folder], input=archive.stdout, check=True)


class OldNetBox(NetBox):
    package: Path

    def environment(self) -> dict[str, str]:
        return super().environment() | {'PYTHONPATH': f'{self.package}:{CHECKOUT / "scripts"}'}


def old(netbox: NetBox, package: Path) -> OldNetBox:
    """Return a NetBox with the same database and settings that runs the package in the folder."""
    made = OldNetBox(netbox.root, netbox.database, netbox.caching, netbox.tasks, netbox.processes, netbox.settings)
    made.package = package
    return made


class Api:
    """The REST API of a server, as a superuser of its own."""

    def __init__(self, server: WebServer) -> None:
        self._server = server
        with using(server.netbox.database):
            token = Token(user=User.objects.create(username='old', is_superuser=True))
            token.save()
        self._authorization = f'{token.get_auth_header_prefix()}{token.token}'

    def request(self, method: str, path: str, **data: Any) -> Any:
        """Return what is answered. Raises HTTPError."""
        headers = {'Authorization': self._authorization, 'Content-Type': 'application/json'}
        url = f'{self._server.url}api/{path}'
        request = urllib.request.Request(url, json.dumps(data).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


class Saver(threading.Thread):
    """Saves a site of its own again and again, and counts what was answered."""

    def __init__(self, api: Api, number: int) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self.error: Exception | None = None
        self._api = api
        self._stopped = threading.Event()
        self.site = api.request('POST', 'dcim/sites/', name=f'Site {number}', slug=f'site-{number}')['id']
        self.start()

    def run(self) -> None:
        try:
            while not self._stopped.wait(PAUSE_SECONDS):
                self._api.request('PATCH', f'dcim/sites/{self.site}/', description=str(self.done + 1))
                self.done += 1
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self._stopped.set()
        self.join(PATIENCE)
        if self.error:
            raise self.error
