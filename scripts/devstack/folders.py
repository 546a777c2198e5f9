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
    """Choose as in bootstrap.sh, which passes its choice on."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(os.environ.get('NETBOX_WEBHOOKS_CACHE') or Path(base) / 'netbox-webhooks')
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def run_folder() -> Iterator[Path]:
    """Another account's server can pass through it, but not list it."""
    folder = Path(tempfile.mkdtemp(prefix='netbox-webhooks-'))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def lock(name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """The kernel releases the lock when the process dies."""
    with (cache_folder() / f'{name}.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def copy_tree(source: Path, target: Path) -> None:
    """Keep owners and modes, and share the blocks if possible."""
    subprocess.run(['cp', '-a', '--reflink=auto', source, target], check=True)


def store_tree(source: Path, target: Path) -> None:
    """The target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix='.unfinished-', dir=target.parent))
    try:
        copy_tree(source, unfinished / 'copy')
        shutil.rmtree(target, ignore_errors=True)
        (unfinished / 'copy').rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
