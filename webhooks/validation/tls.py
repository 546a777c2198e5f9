"""Checks the files for TLS: CA, client certificate and key."""

from os.path import isfile
from pathlib import Path

from django.utils.translation import gettext as _

from .. import conf
from ..exceptions import DefinitionError
from .definition import Definition


def check_ca_file(definition: Definition) -> None:
    """Raise DefinitionError if the CA file may not be used, or has no effect."""
    if definition.ca_file_path and not definition.ssl_verification:
        raise DefinitionError(
            'ca_file_path', _('A CA file has no effect while TLS verification is off. Turn it on, or remove the file.')
        )
    check_file('ca_file_path', definition.ca_file_path)


def check_client_certificate(definition: Definition) -> None:
    """Raise DefinitionError if a certificate or key file may not be used, or a key has no certificate."""
    if definition.client_key_path and not definition.client_cert_path:
        raise DefinitionError(
            'client_key_path', _('A client key file needs a client certificate file. Enter that one as well.')
        )
    check_file('client_cert_path', definition.client_cert_path)
    check_file('client_key_path', definition.client_key_path)


def check_file(field: str, path: str) -> None:
    """Raise DefinitionError for `field` unless the file exists in the folder of the setting `certificate_root`.

    Editors must not be able to probe the host's files. So a file elsewhere gets the same error, existing or not.
    """
    if not path:
        return
    root = conf.get().certificate_root
    if root is None:
        raise DefinitionError(field, _('To use files, name their folder in the setting certificate_root.'))
    if '\x00' in path or not Path(path).resolve().is_relative_to(root):
        raise DefinitionError(field, _('The file must be in the folder {root}.').format(root=root))
    # Path.is_file() would raise for a name that is too long, or a folder that cannot be read.
    if not isfile(path):
        raise DefinitionError(field, _('This file does not exist.'))
