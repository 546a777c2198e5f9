"""Where things lie: the checkout, the cache that outlives a run, and the folder of one run."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """As in bootstrap.sh, which passes its choice on."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(os.environ.get('NETBOX_WEBHOOKS_CACHE') or Path(base) / 'netbox-webhooks')
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def run_folder() -> Iterator[Path]:
    """A private folder that a server under another account can pass through but not list."""
    folder = Path(tempfile.mkdtemp(prefix='netbox-webhooks-'))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def lock(name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Held by one process at a time; the kernel releases it when that process dies."""
    with (cache_folder() / f'{name}.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def copy_tree(source: Path, target: Path) -> None:
    """Owners and modes included; where the file system can, it shares the blocks."""
    subprocess.run(['cp', '-a', '--reflink=auto', source, target], check=True)


def store_tree(source: Path, target: Path) -> None:
    """A copy that appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix='.unfinished-', dir=target.parent))
    try:
        copy_tree(source, unfinished / 'copy')
        shutil.rmtree(target, ignore_errors=True)
        (unfinished / 'copy').rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
