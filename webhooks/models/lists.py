"""Lists that webhooks subscribe to, and the objects of them that their receivers have."""

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import EmptyResultSet
from django.db import connection, models, transaction
from django.db.models.signals import pre_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .. import list_filters
from ..object_types import label_of, model_of_id
from .webhook import Webhook

# Take all objects of a list as known. An object's `digest` is '' until a change of it is sent.
LEARN = """
    INSERT INTO webhooks_listmember (webhook_id, object_type_id, object_id, sequence, digest)
    SELECT %s, %s, l.id, 0, '' FROM ({objects}) AS l(id)
    ON CONFLICT DO NOTHING"""


class ListWalk(models.Model):
    """A list of a webhook, with the state of the walk that compares it (engine/walks/lists.py).

    The webhook is no foreign key in PostgreSQL, so deleting it waits for no worker.
    """

    webhook_id = models.BigIntegerField()
    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+', db_index=False)
    # As in the webhook's `filters`.
    query = models.TextField(_('filter'))
    # A walk is under way, and the last primary key that it has looked at.
    walking = models.BooleanField(default=False)
    last_id = models.BigIntegerField(default=0)
    # Somebody asks for a walk.
    asked = models.BooleanField(default=True)
    begun_at = models.DateTimeField(_('last compared'), null=True)
    # How often the tables were written that the filter reads, when the last walk began.
    written = models.BigIntegerField(null=True)
    # Why the filter could not be used the last time.
    error = models.TextField(_('error'), blank=True)

    _netbox_private = True

    class Meta:
        constraints = [models.UniqueConstraint(fields=['webhook_id', 'object_type'], name='webhooks_listwalk_list')]

    def __str__(self) -> str:
        return f'{self.webhook_id}: {self.object_type} {self.query}'


class ListMember(models.Model):
    """An object that a webhook's receiver has in a list: its entry was sent, and no exit.

    `sequence`: of the last event that was sent about it. `digest`: of the data in that event. They are 0 and '' if the
    object was taken as known.
    """

    webhook_id = models.BigIntegerField()
    object_type = models.ForeignKey(ContentType, on_delete=models.DB_CASCADE, related_name='+', db_index=False)
    object_id = models.BigIntegerField(_('object ID'))
    sequence = models.BigIntegerField(_('sequence'))
    digest = models.TextField(_('digest'))
    # A digest of its row as it was sent or taken as known (outbox/unchanged.py). Null: it is not known.
    state = models.UUIDField(null=True)

    _netbox_private = True

    class Meta:
        ordering = ('object_type', 'object_id')
        constraints = [
            models.UniqueConstraint(
                fields=['webhook_id', 'object_type', 'object_id'], name='webhooks_listmember_object'
            )
        ]

    def __str__(self) -> str:
        return f'{self.webhook_id}: {self.object_type_id}:{self.object_id}'


def sync_lists(webhook: Webhook) -> None:
    """Begin, change and end lists after a save of the webhook. A walk follows, which sends the difference.

    The present objects of a new list are taken as known, unless they are to be sent (`send_list`). The caller has
    locked the webhook's row.
    """
    lists = ListWalk.objects.filter(webhook_id=webhook.pk)
    held = {one.object_type_id: one for one in lists}
    if not held and not webhook.filters:
        return
    wanted = {one.pk: webhook.filters[label_of(one)] for one in webhook.listed_types()}
    gone = held.keys() - wanted.keys()
    lists.filter(object_type_id__in=gone).delete()
    ListMember.objects.filter(webhook_id=webhook.pk, object_type_id__in=gone).delete()
    for type_id, query in wanted.items():
        if type_id not in held:
            ListWalk.objects.create(webhook_id=webhook.pk, object_type_id=type_id, query=query, asked=True)
            if not webhook.send_list:
                _learn(webhook.pk, type_id, query)
    for type_id in wanted.keys() & held.keys():
        # Its difference may also have grown while the webhook was disabled. A walk that is under way goes on first: a
        # program that saves the webhook each minute would never let a long one come to its end.
        lists.filter(pk=held[type_id].pk).update(asked=True)
        lists.filter(pk=held[type_id].pk).exclude(query=wanted[type_id]).update(query=wanted[type_id], walking=False)


def _learn(webhook_id: int, type_id: int, query: str) -> None:
    model = model_of_id(type_id)
    if model is None:
        return
    try:
        objects, parameters = list_filters.objects(model, query).order_by().values('pk').query.sql_with_params()
    except EmptyResultSet:  # the filter looks for a device, for example, that does not exist
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LEARN.format(objects=objects), [webhook_id, type_id, *parameters])


@receiver(pre_save, sender=ListWalk, dispatch_uid='webhooks.lists')
def _loaded(instance: ListWalk, raw: bool, **kwargs) -> None:
    """Make room for a list of a fixture, and for its members: loading its webhook has just begun the same list."""
    if raw:
        same = {'webhook_id': instance.webhook_id, 'object_type': instance.object_type_id}
        ListWalk.objects.filter(**same).exclude(pk=instance.pk).delete()
        ListMember.objects.filter(**same).delete()
