"""Somebody at a browser, who notices problems of the pages."""

import re

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Response

# Reported for requests dropped for another page.
ABORTED = 'net::ERR_ABORTED'


class Person:
    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.problems: list[str] = []
        # Expected statuses, such as 403.
        self.expected: set[int] = set()
        page.on('console', self._note_console)
        page.on('pageerror', lambda error: self.problems.append(f'{page.url}: {error}'))
        page.on('requestfailed', self._note_failure)
        page.on('response', self._note_response)

    def _note_console(self, message: ConsoleMessage) -> None:
        """Skip refused requests: they are noted as responses."""
        if message.type == 'error' and 'Failed to load resource' not in message.text:
            self.problems.append(f'{self.page.url}: {message.text}')

    def _note_failure(self, request: Request) -> None:
        if request.failure != ABORTED:
            self.problems.append(f'{self.page.url}: {request.url}: {request.failure}')

    def _note_response(self, response: Response) -> None:
        if not response.url.startswith((self.base, 'data:')):
            self.problems.append(f'{self.page.url} asked for {response.url}')
        if response.status >= 400 and response.status not in self.expected:
            self.problems.append(f'{self.page.url}: {response.url}: {response.status}')

    def visit(self, path: str) -> Response:
        return self.page.goto(path.removeprefix('/'))

    def button(self, name: str) -> Locator:
        return self.page.get_by_role('button', name=_named(name))

    def link(self, name: str) -> Locator:
        return self.page.get_by_role('link', name=_named(name))

    def field(self, label: str) -> Locator:
        return self.page.get_by_label(label, exact=True)

    def unfold(self, group: str) -> None:
        self.page.locator('summary', has_text=group).click()

    def choose(self, field: str, option: str) -> None:
        """NetBox's selectors (TomSelect) load options only when opened."""
        self.page.locator(f'#id_{field} + .ts-wrapper .ts-control').click()
        self.page.locator(f'#id_{field}-ts-dropdown').get_by_role('option', name=option).first.click()

    def leave(self) -> None:
        self.page.close()
        assert self.problems == [], self.problems


def _named(name: str) -> re.Pattern[str]:
    """Match the whole name after an icon, which is a character too."""
    return re.compile(rf'(^|\W\s){re.escape(name)}\s*$')
