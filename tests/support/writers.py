"""Transactions beside the test's own, on their own connections."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from django.db import connection, connections, transaction

from devstack.process import wait_until

PATIENCE = 60


class Writer(threading.Thread):
    """It commits after `finish`, or fails after PATIENCE seconds."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self.pid = 0
        self._work = work
        # None means commit.
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._has_written = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute('SELECT pg_backend_pid()')
                    self.pid = cursor.fetchone()[0]
                self._work()
                self._has_written.set()
                while step := self._steps.get(timeout=PATIENCE):
                    step()
        except Exception as error:
            self.error = error
        finally:
            connections.close_all()

    def has_written(self) -> 'Writer':
        assert self._has_written.wait(PATIENCE), self.error
        return self

    def waits(self) -> 'Writer':
        """Return once PostgreSQL lets it wait for a lock."""
        assert wait_until(lambda: self.pid and is_blocked(self.pid), timeout=PATIENCE)
        return self

    def also(self, work: Callable[[], object]) -> None:
        """Work in the same transaction. If that fails, return after the rollback."""
        is_done = threading.Event()
        self._steps.put(lambda: (work(), is_done.set()))
        assert wait_until(lambda: is_done.is_set() or not self.is_alive(), timeout=PATIENCE)
        assert is_done.is_set(), self.error

    def finish(self) -> None:
        self._steps.put(None)
        self.join(PATIENCE)
        if self.error:
            raise self.error


def is_blocked(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute('SELECT cardinality(pg_blocking_pids(%s)) > 0', [pid])
        return cursor.fetchone()[0]


def in_parallel(workers: Iterable[Callable[[], object]]) -> None:
    """Run all at once, and raise one error of theirs."""
    errors: list[Exception] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[work]) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]


@contextmanager
def before_statement(text: str, work: Callable[[], object]) -> Iterator[None]:
    """Work on another connection, once, just before this thread's next statement with this text."""
    left = [work]

    def execute(inner: Callable[..., Any], statement: str, *rest: Any) -> Any:
        if left and text in statement:
            in_parallel([left.pop()])
        return inner(statement, *rest)

    with connection.execute_wrapper(execute):
        yield
    assert not left, 'there was no such statement'
