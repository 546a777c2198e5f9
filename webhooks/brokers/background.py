"""Runs an asyncio loop in a thread, for drivers whose library needs one."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from .driver import Away

# If the loop itself hangs, its own timeout never comes. Then the caller gives up this much later.
HANG_MARGIN_SECONDS = 1.0
# A broker that does not answer holds up the end of a process this long: once with its goodbye, once with the thread.
GOODBYE_SECONDS = 2.0


class Background:
    """A daemon thread with an asyncio loop. Begins at once, and runs until `close`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run[T](self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run the coroutine in the loop, and return its result. Any thread may call it, and waits.

        Raises Away after `timeout` seconds, and any error of the coroutine.
        """
        waiting = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop)
        try:
            return waiting.result(timeout + HANG_MARGIN_SECONDS)
        except TimeoutError as error:
            waiting.cancel()
            raise Away(str(error) or f'no confirmation within {timeout:g} seconds') from error

    def close(self, goodbye: Coroutine[Any, Any, object] | None = None) -> None:
        """Run `goodbye`, ignoring its errors, and end the thread. Takes some seconds at most."""
        if goodbye is not None:
            with suppress(Exception):
                self.run(goodbye, GOODBYE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GOODBYE_SECONDS)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
