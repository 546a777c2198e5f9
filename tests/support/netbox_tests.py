"""NetBox's own tests as a source of unexpected changes: `scripts/test --netbox`.

Before a test is rolled back, its rendered events are compared with the REST API. Exceptions:

- gone objects: a deletion takes its snapshot itself;
- objects changed later without a signal, as by QuerySet.update(). They are counted;
- objects that the REST API itself fails to show, counted as well.

Gone related objects are shown as their deletion held them, where the REST API shows null.

NetBox's tests may fail here: some count queries, and the plugin makes more.
"""

import json
from collections import Counter
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model
from django.test import TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner
from django.urls import NoReverseMatch
from rest_framework.test import APIClient
from users.models import User

from support.rest import api_url, without_host
from webhooks import rendering
from webhooks.models import Event, Webhook
from webhooks.object_types import every_model
from webhooks.outbox import snapshots

NAME = 'Everything'
# The page has a script's last job in full, NetBox's webhooks do not.
OF_THE_PAGE = {'extras.script': {'result'}}


class Comparison:
    def __init__(self) -> None:
        self.last = 0
        self.same: Counter[str] = Counter()
        self.silent: Counter[str] = Counter()
        self.without_page: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()
        self.differing: list[str] = []

    def compare(self, test: TestCase) -> None:
        """A broken transaction allows no comparison."""
        if connection.needs_rollback or connection.connection is None:
            return
        recorded = Event.objects.filter(dispatched_at=None, sequence__gt=self.last, kind__in=('created', 'updated'))
        events = list(recorded.select_related('object_type').order_by('sequence'))
        if not events:
            return
        self.last = events[-1].sequence
        client = APIClient()
        client.force_authenticate(User.objects.create(username='compares', is_superuser=True))
        for event in events:
            if problem := self._problem(event, client):
                self.differing.append(f'{test.id()}: {event.kind} {event.object_type.app_label}.{problem}')

    def _problem(self, event: Event, client: APIClient) -> str:
        model = event.object_type.model_class()
        label = f'{model._meta.model_name} {event.object_id}'
        instance = model._base_manager.filter(pk=event.object_id).first()
        if instance is None:
            return ''
        if json.loads(snapshots.take(model, [instance.pk])[instance.pk]) != event.snapshot:
            self.silent[model._meta.label_lower] += 1
            return ''
        if (expected := self._expected(client, instance)) is None:
            return ''
        try:
            (shown,) = rendering.render(model, [event.snapshot])
        except Exception as error:
            return f'{label}: {type(error).__name__}: {error}'
        wrong = [
            key
            for key in {*shown.data, *expected} - OF_THE_PAGE.get(model._meta.label_lower, set())
            if shown.data.get(key) != expected.get(key)
            and not (expected.get(key) is None and _is_gone(shown.data.get(key)))
        ]
        if not wrong:
            self.same[model._meta.label_lower] += 1
            return ''
        key = wrong[0]
        return f'{label}: {wrong}: {key} is {shown.data.get(key)!r:.200}, and not {expected.get(key)!r:.200}'

    def _expected(self, client: APIClient, instance: Model) -> dict[str, Any] | None:
        label = instance._meta.label_lower
        try:
            expected = _shown_by_the_api(client, instance)
        except Exception:
            self.failing[label] += 1
            return None
        if expected is None:
            self.without_page[label] += 1
        return expected

    def report(self) -> str:
        lines = [f'differs: {one}' for one in self.differing]
        left_out = {
            'changed without a signal': self.silent,
            'without a page': self.without_page,
            'the REST API fails': self.failing,
        }
        for what, counted in left_out.items():
            lines.append(f'{what}: {counted.total()} {dict(counted)}')
        lines.append(f'{self.same.total()} changes of {len(self.same)} models compared, {len(self.differing)} differ')
        return '\n'.join(lines)


def _shown_by_the_api(client: APIClient, instance: Model) -> dict[str, Any] | None:
    try:
        answer = client.get(api_url(instance))
    except NoReverseMatch:
        return None
    return without_host(json.loads(answer.content)) if answer.status_code == 200 else None


def _is_gone(shown: Any) -> bool:
    """An object made and deleted in one test has an event without a kind."""
    if not isinstance(shown, dict):
        return False
    return Event.objects.filter(kind__in=('deleted', ''), object_id=shown.get('id')).exists()


def subscribe_to_everything() -> None:
    """A test may have emptied all tables."""
    if Webhook.objects.filter(name=NAME).exists():
        return
    flags = {'type_create': True, 'type_update': True, 'type_delete': True}
    webhook = Webhook.objects.create(name=NAME, payload_url='http://127.0.0.1:9/', **flags)
    webhook.object_types.set(ContentType.objects.get_for_models(*every_model()).values())


class Runner(DiscoverRunner):
    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        self.comparison = Comparison()
        subscribe_to_everything()
        _before_teardown(TestCase, self.comparison.compare)
        _before_teardown(TransactionTestCase, self.comparison.compare)
        return super().run_suite(suite, **kwargs)

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        super().suite_result(suite, result, **kwargs)
        print(self.comparison.report())
        return len(self.comparison.differing) or not self.comparison.same


def _before_teardown(case: type[TransactionTestCase], compare: Any) -> None:
    teardown = case._fixture_teardown

    def compared(self: TransactionTestCase) -> None:
        try:
            compare(self)
        finally:
            teardown(self)
            if case is TransactionTestCase and not isinstance(self, TestCase):
                subscribe_to_everything()

    case._fixture_teardown = compared
