"""Seals URLs that are stored in clear.

1.0.0 stored them that way, and its processes may still do so during an upgrade. So may a script with SQL.
"""

from django.db.backends.base.base import BaseDatabaseWrapper

from .fields import SEALED_MARK, MaskedUrl, as_stored

READ_CLEAR = f"SELECT id, payload_url, secret_path FROM webhooks_webhook WHERE payload_url NOT LIKE '%%{SEALED_MARK}%%'"
READ_SEALED = f"SELECT id, payload_url FROM webhooks_webhook WHERE payload_url LIKE '%%{SEALED_MARK}%%'"
# Replace a URL, unless somebody is about to change it, or has.
REPLACE = """
    UPDATE webhooks_webhook SET payload_url = %(new)s WHERE id = (
        SELECT id FROM webhooks_webhook WHERE id = %(pk)s AND payload_url = %(old)s FOR UPDATE SKIP LOCKED
    )"""


def seal(connection: BaseDatabaseWrapper) -> None:
    """Seal each URL that is stored in clear, and has a secret part. A locked webhook waits for the next call."""
    with connection.cursor() as cursor:
        cursor.execute(READ_CLEAR, [])
        for pk, old, hides_path in cursor.fetchall():
            if (new := as_stored(old, hides_path)) != old:
                cursor.execute(REPLACE, {'pk': pk, 'old': old, 'new': new})


def unseal(connection: BaseDatabaseWrapper) -> None:
    """Store all URLs in clear again, for 1.0.0. Raises DecryptionError."""
    with connection.cursor() as cursor:
        cursor.execute(READ_SEALED, [])
        for pk, old in cursor.fetchall():
            cursor.execute(REPLACE, {'pk': pk, 'old': old, 'new': MaskedUrl.stored(old).reveal()})
