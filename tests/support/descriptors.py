import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sockets_to(port: int) -> int:
    """Count sockets that are connected to a port of this machine, and not closed on the near side."""
    rows = [line.split() for line in Path('/proc/net/tcp').read_text().splitlines()[1:]]
    return sum(row[2].endswith(f':{port:04X}') and row[9] != '0' for row in rows)


@contextmanager
def left(count: int) -> Iterator[None]:
    """Let this process open so many more files and sockets. No open one is above the limit, as elsewhere."""
    # A socket of an earlier test in a cycle of garbage would be closed some time, which makes room for one more.
    gc.collect()
    highest = max(map(int, os.listdir('/proc/self/fd')))
    filling = [os.dup(0)]
    while filling[-1] < highest:
        filling.append(os.dup(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in filling:
            os.close(one)
