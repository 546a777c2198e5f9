"""What is done where nothing is to be dispatched: slices of backfills, and a little of what is to be tidied."""

import time

from ...interruptions import INTERRUPTIONS
from .. import transactions
from ..backfill.loop import Backfills
from ..tidy import loop as tidy

# Seconds between two looks for what is to be tidied, where there was nothing.
INTERVAL = 1.0


class Beside:
    def __init__(self) -> None:
        self._backfills = Backfills()
        self._tidied_at = 0.0

    def step(self) -> bool:
        """Do a little. Returns whether there may be more."""
        try:
            return any([self._backfills.cut(), self._tidy()])
        except INTERRUPTIONS as error:
            transactions.recover(error)
            return False

    def _tidy(self) -> bool:
        if time.monotonic() < self._tidied_at + INTERVAL:
            return False
        more = tidy.step()
        self._tidied_at = 0.0 if more else time.monotonic()
        return more
