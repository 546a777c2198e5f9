"""Stores digests of the config contexts that webhooks were sent, and walks that find objects with another one."""

from collections.abc import Collection

from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

# Add a walk that learns, unless there is one that has not begun. No unique index guards it: otherwise others would wait
# for the user's commit.
BEGIN_TO_LEARN = """
    INSERT INTO webhooks_contextwalk (caused_by, started, position, last_id, looked)
    SELECT '[]', false, 0, 0, 0 WHERE NOT EXISTS (
        SELECT FROM webhooks_contextwalk WHERE NOT started AND first_sequence IS NULL
    )"""

# Delete the digests of these types, unless another webhook asks for them: nobody has kept them up to date.
FORGET_DIGESTS = """
    DELETE FROM webhooks_contextdigest d
    WHERE object_type_id = ANY(%s) AND NOT EXISTS (
        SELECT FROM webhooks_subscription s
        WHERE s.object_type_id = d.object_type_id AND s.kind = 'derived' AND s.until IS NULL AND s.webhook_id <> %s
    )"""


def learn_anew(object_types: Collection[int], webhook: models.Model) -> None:
    """Delete the digests of these object types, and let a dispatcher compute them anew for all objects.

    Digests stay if another webhook than this one asks for them already. A walk that has not begun yet learns them too.
    """
    with connection.cursor() as cursor:
        cursor.execute(FORGET_DIGESTS, [list(object_types), webhook.pk])
        cursor.execute(BEGIN_TO_LEARN)


class ContextDigest(models.Model):
    """The digest of the config context that was last sent for an object. Without a row it is unknown.

    It is kept up to date while some webhook asks, and deleted before another one asks again.
    """

    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+', db_index=False)
    object_id = models.BigIntegerField()
    digest = models.TextField()

    _netbox_private = True

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=['object_type', 'object_id'], name='webhooks_contextdigest_object')
        ]

    def __str__(self) -> str:
        return f'{self.object_type_id}:{self.object_id}'


class ContextWalk(models.Model):
    """A walk over all objects with config contexts (engine/walks/config_contexts.py). It ends by deletion of its row.

    Changes that come before it has begun share it. One walk goes on at a time, by `position` (in the list of models)
    and `last_id` (the last primary key that it has looked at).
    """

    # The models whose changes caused it. Empty: it only learns.
    caused_by = models.JSONField(default=list)
    # {column of Event: value} of the request that caused it. Null: there were several, or none.
    origin = models.JSONField(null=True)
    # `sequence` and `visible` of the first change. Null: it only learns.
    first_sequence = models.BigIntegerField(null=True)
    first_visible = models.TextField(null=True)
    started = models.BooleanField(default=False)
    position = models.SmallIntegerField(default=0)
    last_id = models.BigIntegerField(default=0)
    looked = models.BigIntegerField(_('looked at'), default=0)

    _netbox_private = True

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=['started'],
                condition=Q(started=False, first_sequence__isnull=False),
                name='webhooks_contextwalk_waiting',
            )
        ]

    def __str__(self) -> str:
        return f'{self.looked}: {", ".join(self.caused_by)}'
