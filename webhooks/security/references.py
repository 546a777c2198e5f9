"""Secrets by reference: `file:/run/secrets/x` or `env:NAME` in place of the secret itself.

A reference is stored and compared as any secret. It is read when the secret is needed, so a renewed file needs no
restart. Only folders and names that the settings `secret_folders` and `secret_variables` allow are read.
"""

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from django.utils.translation import gettext as _

from .. import conf
from ..exceptions import WebhooksError

FILE, VARIABLE = 'file:', 'env:'
REFERENCE = re.compile(rf'{FILE}/.+|{VARIABLE}[A-Za-z_][A-Za-z0-9_]*')
# A longer file holds no secret.
MAX_FILE_BYTES = 64 * 1024
# No key, token or header has one of these.
CONTROL_CHARACTER = re.compile(r'[\x00-\x1f\x7f]')


class SecretUnavailable(WebhooksError):
    """A reference may not be read, or there is nothing to read now. str() names it, and says what is wrong."""


def is_reference(text: str) -> bool:
    """Return whether the text names a file or a variable that holds the secret."""
    return REFERENCE.fullmatch(text) is not None


def check(reference: str) -> None:
    """Raise SecretUnavailable unless the settings allow to read it. Reads nothing: only workers need the file."""
    if reference.startswith(VARIABLE):
        name = reference.removeprefix(VARIABLE)
        if not any(fnmatchcase(name, pattern) for pattern in conf.get().secret_variables):
            raise SecretUnavailable(_('{reference}: secret_variables does not allow it').format(reference=reference))
        return
    folders = [folder.resolve() for folder in conf.get().secret_folders]
    # A link in an allowed folder may lead out of it.
    path = Path(os.path.realpath('/' if '\x00' in reference else reference.removeprefix(FILE)))
    if not any(map(path.is_relative_to, folders)):
        raise SecretUnavailable(_('{reference}: secret_folders does not allow it').format(reference=reference))


def read(text: str) -> str:
    """Return the secret that the text names, without the line's end. A text that is no reference comes back unchanged.

    Raises SecretUnavailable.
    """
    if not is_reference(text):
        return text
    check(text)
    is_file = text.startswith(FILE)
    secret = _of_file(text) if is_file else os.environ.get(text.removeprefix(VARIABLE), '')
    if not secret:
        reason = _('{reference}: the file is empty') if is_file else _('{reference}: there is no such variable')
        raise SecretUnavailable(reason.format(reference=text))
    if CONTROL_CHARACTER.search(secret):
        raise SecretUnavailable(_('{reference}: it has a control character or several lines').format(reference=text))
    return secret


def _of_file(reference: str) -> str:
    try:
        # A pipe that nobody writes to would keep the reader waiting for ever.
        with open(reference.removeprefix(FILE), 'rb', opener=_without_waiting) as file:
            content = file.read(MAX_FILE_BYTES + 1) or b''
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(_('it is too long'))
        return content.decode().rstrip('\r\n')
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        reason = _('it is not text')
    except ValueError as error:
        reason = str(error)
    raise SecretUnavailable(f'{reference}: {reason}')


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
