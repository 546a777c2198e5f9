"""An asyncio loop in a thread: drivers of libraries that need one."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from .driver import Away

# Seconds, in case that the loop itself hangs.
MARGIN = 1.0
# Seconds to say goodbye.
LAST = 2.0


class Background:
    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run[T](self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Return the result, for any thread. Raises Away after `timeout` seconds."""
        waiting = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop)
        try:
            return waiting.result(timeout + MARGIN)
        except TimeoutError as error:
            waiting.cancel()
            raise Away(str(error) or f'no confirmation within {timeout:g} seconds') from error

    def close(self, goodbye: Coroutine[Any, Any, object] | None = None) -> None:
        """Run `goodbye`, whatever comes of it, and end the thread."""
        if goodbye is not None:
            with suppress(Exception):
                self.run(goodbye, LAST)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LAST)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
