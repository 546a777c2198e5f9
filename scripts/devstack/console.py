"""Progress goes to standard error, so that programs can read the output."""

import sys
import time

ON_TERMINAL = sys.stderr.isatty()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A counting line: rewritten on a terminal, otherwise repeated every few seconds."""

    INTERVAL = 5.0

    def __init__(self, label: str) -> None:
        self.label = label
        self.started = self.printed = time.monotonic()

    def show(self, text: str) -> None:
        now = time.monotonic()
        if ON_TERMINAL:
            print(f'\r\033[K{self._line(text)}', end='', file=sys.stderr, flush=True)
        elif now - self.printed >= self.INTERVAL:
            self.printed = now
            say(self._line(text))

    def done(self, text: str) -> None:
        say(f'\r\033[K{self._line(text)}' if ON_TERMINAL else self._line(text))

    def _line(self, text: str) -> str:
        return f'{self.label}: {text} ({time.monotonic() - self.started:.0f} s)'
