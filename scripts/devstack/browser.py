"""The distribution's Chromium without a window. It reaches loopback only."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

from devstack.failure import StartFailed
from devstack.ports import LOOPBACK

# Chromium sends nothing of its own, and pages that ask elsewhere fail.
# Containers have a small /dev/shm.
_OPTIONS = [
    '--disable-gpu',
    '--disable-quic',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    f'--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}',
]


@contextmanager
def running_browser() -> Iterator[Browser]:
    path = os.environ.get('CHROMIUM') or shutil.which('chromium')
    if not path:
        raise StartFailed('chromium was not found: please install it')
    with sync_playwright() as playwright:
        # The sandbox fails as root, and all pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=_OPTIONS, chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, base: str, username: str, password: str) -> None:
    page.goto(f'{base}login/')
    page.get_by_label('Username').fill(username)
    page.get_by_label('Password').fill(password)
    page.get_by_role('button', name='Sign In').click()
    expect(page.locator('#dashboard')).to_be_visible()
