"""The test bed: ours, the built-in or neither, and a worker."""

import itertools
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from core.events import OBJECT_CREATED, OBJECT_DELETED, OBJECT_UPDATED
from dcim.models import Device, DeviceRole, DeviceType, Manufacturer, Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models, transaction
from django_rq import get_queue
from extras.models import EventRule
from extras.models import Webhook as BuiltIn
from netbox.context_managers import event_tracking
from tenancy.models import Tenant
from users.models import User
from utilities.request import NetBoxFakeRequest

from devstack.receiver import Receiver
from webhooks.models import Event, Webhook

HOOK = '/hook'
SETTINGS_FOR_WORKERS = {'PYTHONUNBUFFERED': '1'}
OURS, BUILTIN, NEITHER = 'ours', 'built-in', 'neither'
Models = type[models.Model] | tuple[type[models.Model], ...]


class Bed:
    def __init__(self, receiver: Receiver, quick: bool):
        self.receiver = receiver
        self.quick = quick
        self.turns = 1 if quick else 5
        self._numbers = itertools.count(1)
        self.user = User.objects.create_superuser(f'bench-{uuid.uuid4().hex[:8]}', password='bench')
        self.site = Site.objects.create(name='Bench', slug='bench')
        maker = Manufacturer.objects.create(name='Maker', slug='maker')
        self.device_type = DeviceType.objects.create(manufacturer=maker, model='Model', slug='model')
        self.role = DeviceRole.objects.create(name='Role', slug='role')

    @contextmanager
    def subscribed(self, side: str, model: Models, count: int = 1, path: str = HOOK, **fields: Any) -> Iterator[None]:
        """Start and end with empty queues. `fields` are for our webhook."""
        self.reset()
        if side == OURS:
            made = [self._ours(model, path, **fields) for _ in range(count)]
        elif side == BUILTIN:
            made = [one for _ in range(count) for one in self._builtin(model, path)]
        else:
            made = []
        try:
            yield
        finally:
            for one in reversed(made):
                one.delete()
            self.reset()

    def _ours(self, model: Models, path: str, **fields: Any) -> Webhook:
        webhook = Webhook(
            name=f'bench {next(self._numbers)}',
            payload_url=self.receiver.url(path),
            type_create=True,
            type_update=True,
            type_delete=True,
            secret='bench',
            # Sections save objects again as they are.
            **{'only_real_changes': False, **fields},
        )
        webhook.full_clean()
        webhook.save()
        webhook.object_types.set(_object_types(model))
        return webhook

    def _builtin(self, model: Models, path: str) -> Sequence[models.Model]:
        number = next(self._numbers)
        webhook = BuiltIn.objects.create(name=f'bench {number}', payload_url=self.receiver.url(path), secret='bench')
        rule = EventRule(
            name=f'bench {number}',
            event_types=[OBJECT_CREATED, OBJECT_UPDATED, OBJECT_DELETED],
            action_type='webhook',
            action_object_type=ContentType.objects.get_for_model(BuiltIn),
            action_object_id=webhook.pk,
        )
        rule.save()
        rule.object_types.set(_object_types(model))
        return [webhook, rule]

    def reset(self) -> None:
        for name in ('high', 'default', 'low'):
            queue = get_queue(name)
            queue.empty()
            queue.failed_job_registry.cleanup()
        get_queue('low').connection.delete('rq:webhooks:woken:low')
        with connection.cursor() as cursor:
            cursor.execute('TRUNCATE webhooks_event CASCADE')
        self.receiver.clear()

    @contextmanager
    def request(self) -> Iterator[None]:
        """NetBox's built-in webhooks see no other changes."""
        fields = {'id': uuid.uuid4(), 'user': self.user, 'path': '/', 'path_info': '/', 'method': 'POST'}
        empty = {'GET': {}, 'POST': {}, 'COOKIES': {}, 'META': {}, 'FILES': {}}
        with event_tracking(NetBoxFakeRequest(fields | empty)):
            yield

    def new_devices(self, count: int) -> list[Device]:
        return [
            Device(name=f'device {next(self._numbers)}', site=self.site, device_type=self.device_type, role=self.role)
            for _ in range(count)
        ]

    def new_sites(self, count: int) -> list[Site]:
        numbers = [next(self._numbers) for _ in range(count)]
        return [Site(name=f'site {number}', slug=f'site-{number}') for number in numbers]

    def new_tenants(self, count: int) -> list[Tenant]:
        numbers = [next(self._numbers) for _ in range(count)]
        return [Tenant(name=f'tenant {number}', slug=f'tenant-{number}') for number in numbers]

    def save(self, objects: Sequence[models.Model]) -> None:
        """Save in one transaction, as one request does."""
        with self.request(), transaction.atomic():
            for one in objects:
                one.save()

    def delete(self, one: models.Model) -> None:
        with self.request(), transaction.atomic():
            one.delete()

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen]:
        child = subprocess.Popen(
            [sys.executable, '-m', 'netbox', 'rqworker'],
            env=os.environ | SETTINGS_FOR_WORKERS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield child
        finally:
            child.terminate()
            child.wait()


def _object_types(model: Models) -> list[ContentType]:
    return [ContentType.objects.get_for_model(each) for each in (model if isinstance(model, tuple) else (model,))]


def dispatch_began() -> float:
    """Return unix seconds."""
    return Event.objects.order_by('dispatched_at').values_list('dispatched_at', flat=True).first().timestamp()
