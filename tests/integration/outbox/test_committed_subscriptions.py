"""Commits decide which events a webhook gets, not sequence numbers.

The witness is a webhook that stays subscribed.
"""

from collections.abc import Callable, Iterator

import pytest
from dcim.models import Site
from django.db import connection, transaction
from django.db.models import F
from support.builders import CREATED, NOWHERE, UPDATED, changes, forget_events, recorded, site, subscribe
from support.engine import dispatch_all
from support.writers import Writer

from webhooks.models import Delivery, Event, Subscription, Webhook, subscription

pytestmark = pytest.mark.usefixtures('committed')


def set_enabled(webhook: Webhook, enabled: bool) -> None:
    """A view saves a fresh instance."""
    one = Webhook.objects.get(pk=webhook.pk)
    one.enabled = enabled
    one.save()


def describe(place: Site, text: str) -> None:
    one = Site.objects.get(pk=place.pk)
    one.description = text
    one.save()


def sent_to(webhook: Webhook) -> list[tuple[str, int]]:
    dispatch_all()
    deliveries = Delivery.objects.filter(webhook=webhook).order_by('sequence')
    return list(deliveries.values_list('event__kind', 'event__object_id'))


@pytest.fixture
def witness(committed: None) -> Webhook:
    return subscribe(NOWHERE, Site)


@pytest.fixture
def webhook(witness: Webhook) -> Webhook:
    return subscribe(NOWHERE, Site)


@pytest.fixture
def disabled(witness: Webhook) -> Webhook:
    return subscribe(NOWHERE, Site, enabled=False)


class TestDisabling:
    def test_a_change_committed_before_the_commit_of_a_disable_is_sent(self, webhook, witness):
        closing = Writer(lambda: set_enabled(webhook, False)).has_written()
        place = site()
        closing.finish()
        after = site()
        assert sent_to(webhook) == [(CREATED, place.pk)]
        assert sent_to(witness) == [(CREATED, place.pk), (CREATED, after.pk)]

    @pytest.mark.parametrize('is_newest', [True, False], ids=['the newest', 'not the newest'])
    def test_so_is_one_whichever_transaction_of_the_server_is_the_newest(self, webhook, witness, is_newest):
        """PostgreSQL lists running transactions only up to the newest that ended."""
        closing = Writer(lambda: set_enabled(webhook, False)).has_written()
        if not is_newest:
            subscribe(NOWHERE, Site)
        with transaction.atomic():
            place = site()
        closing.finish()
        assert sent_to(webhook) == sent_to(witness) == [(CREATED, place.pk)]

    def test_so_is_one_to_the_only_webhook(self, committed):
        only = subscribe(NOWHERE, Site)
        closing = Writer(lambda: set_enabled(only, False)).has_written()
        place = site()
        closing.finish()
        site()
        assert sent_to(only) == [(CREATED, place.pk)]

    def test_whenever_it_is_dispatched(self, webhook):
        closing = Writer(lambda: set_enabled(webhook, False)).has_written()
        first, second = site(), None
        assert sent_to(webhook) == [(CREATED, first.pk)]
        second = site()
        closing.finish()
        assert sent_to(webhook) == [(CREATED, first.pk), (CREATED, second.pk)]

    def test_a_change_after_a_disable_that_was_rolled_back_is_sent(self, webhook):
        def regretted() -> None:
            set_enabled(webhook, False)
            raise InterruptedError

        with pytest.raises(InterruptedError):
            Writer(regretted).finish()
        place = site()
        assert sent_to(webhook) == [(CREATED, place.pk)]

    def test_a_disable_in_a_savepoint_counts_from_the_commit_of_its_transaction(self, webhook, witness):
        def disable() -> None:
            with transaction.atomic(), transaction.atomic():
                set_enabled(webhook, False)

        closing = Writer(disable).has_written()
        before = site()
        closing.finish()
        after = site()
        assert sent_to(webhook) == [(CREATED, before.pk)]
        assert sent_to(witness) == [(CREATED, before.pk), (CREATED, after.pk)]

    def test_disabled_and_enabled_in_one_transaction_it_gets_each_change_once(self, webhook, witness):
        place = site()
        forget_events()
        writer = Writer(lambda: describe(place, 'before')).has_written()

        def toggle() -> None:
            set_enabled(webhook, False)
            set_enabled(webhook, True)

        toggling = Writer(toggle).has_written()
        during = site()
        toggling.finish()
        writer.also(lambda: describe(place, 'after'))
        writer.finish()
        assert sent_to(webhook) == sent_to(witness) == [(CREATED, during.pk), (UPDATED, place.pk)]


class TestLongTransaction:
    """Its changes merge into a single event, which draws a new number each time."""

    @pytest.fixture
    def place(self, committed: None) -> Site:
        return site()

    @pytest.fixture
    def writer(self, place: Site, webhook: Webhook) -> Writer:
        return Writer(lambda: describe(place, 'first')).has_written()

    def test_its_change_before_a_disable_is_sent_although_it_goes_on_after_it(self, place, webhook, writer):
        set_enabled(webhook, False)
        writer.also(lambda: describe(place, 'second'))
        writer.finish()
        assert sent_to(webhook) == [(UPDATED, place.pk)]

    def test_its_change_before_a_short_disable_is_sent_although_it_goes_on_within(self, place, webhook, writer):
        set_enabled(webhook, False)
        writer.also(lambda: describe(place, 'second'))
        set_enabled(webhook, True)
        writer.finish()
        assert sent_to(webhook) == [(UPDATED, place.pk)]

    def test_it_is_sent_once_although_it_changed_the_object_before_and_after_a_short_disable(
        self, place, webhook, writer
    ):
        set_enabled(webhook, False)
        set_enabled(webhook, True)
        writer.also(lambda: describe(place, 'second'))
        writer.finish()
        assert sent_to(webhook) == [(UPDATED, place.pk)]

    def test_its_change_while_a_disabling_transaction_is_open_is_sent_although_it_goes_on_after_it(
        self, place, webhook, witness
    ):
        closing = Writer(lambda: set_enabled(webhook, False)).has_written()
        writer = Writer(lambda: describe(place, 'first')).has_written()
        closing.finish()
        writer.also(lambda: describe(place, 'second'))
        writer.finish()
        assert sent_to(webhook) == sent_to(witness) == [(UPDATED, place.pk)]

    def test_its_last_change_is_sent_to_a_webhook_that_was_enabled_before_it(self, place, disabled, writer):
        set_enabled(disabled, True)
        writer.also(lambda: describe(place, 'second'))
        writer.finish()
        assert sent_to(disabled) == [(UPDATED, place.pk)]

    def test_it_is_not_sent_to_a_webhook_that_was_enabled_after_its_changes(self, place, disabled, writer, witness):
        writer.also(lambda: describe(place, 'second'))
        set_enabled(disabled, True)
        writer.finish()
        assert sent_to(witness) == [(UPDATED, place.pk)]
        assert sent_to(disabled) == []

    def test_a_change_in_a_savepoint_that_is_rolled_back_counts_for_nothing(self, place, disabled, writer, witness):
        set_enabled(disabled, True)

        def regret() -> None:
            try:
                with transaction.atomic():
                    describe(place, 'regretted')
                    raise InterruptedError
            except InterruptedError:
                pass

        writer.also(regret)
        writer.finish()
        assert sent_to(witness) == [(UPDATED, place.pk)]
        assert sent_to(disabled) == []


class TestEnabling:
    @pytest.mark.parametrize('between', [lambda: None, lambda: subscribe(NOWHERE, Site)], ids=['at once', 'later'])
    def test_a_change_committed_before_the_commit_of_an_enable_is_not_sent(self, disabled, witness, between: Callable):
        opening = Writer(lambda: set_enabled(disabled, True)).has_written()
        between()
        with transaction.atomic():
            before = site()
        opening.finish()
        after = site()
        assert sent_to(disabled) == [(CREATED, after.pk)]
        assert sent_to(witness) == [(CREATED, before.pk), (CREATED, after.pk)]

    def test_a_change_that_is_dispatched_before_the_subscription_commits_is_not_sent(self, disabled, witness):
        opening = Writer(lambda: set_enabled(disabled, True)).has_written()
        before = site()
        assert sent_to(witness) == [(CREATED, before.pk)]
        opening.finish()
        after = site()
        assert sent_to(disabled) == [(CREATED, after.pk)]


class TestOwnTransaction:
    """Its own subscription counts from the moment of the change."""

    def test_it_enables_and_then_changes(self, disabled, witness):
        with transaction.atomic():
            before = site()
            set_enabled(disabled, True)
            after = site()
        assert sent_to(disabled) == [(CREATED, after.pk)]
        assert sent_to(witness) == [(CREATED, before.pk), (CREATED, after.pk)]

    def test_it_changes_and_then_disables(self, webhook, witness):
        with transaction.atomic():
            before = site()
            set_enabled(webhook, False)
            after = site()
        assert sent_to(webhook) == [(CREATED, before.pk)]
        assert sent_to(witness) == [(CREATED, before.pk), (CREATED, after.pk)]

    def test_it_changes_disables_and_changes_again(self, webhook):
        with transaction.atomic():
            place = site()
            set_enabled(webhook, False)
            describe(place, 'later')
        assert sent_to(webhook) == [(CREATED, place.pk)]


class TestOtherCluster:
    """After a restore, old transaction ids say nothing."""

    @pytest.fixture(params=[-1, 0, 1], ids=['lower ids', 'the same ids', 'higher ids'])
    def restored(self, webhook: Webhook, request: pytest.FixtureRequest) -> Webhook:
        set_enabled(webhook, False)
        set_enabled(webhook, True)
        ids = Subscription.objects.filter(webhook=webhook)
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_current_xact_id()::text::bigint')
            current = cursor.fetchone()[0]
        shift = request.param * current // 2
        # With 0 they equal the next transactions' ids.
        ids.update(cluster=F('cluster') + 1, opened_by=current + shift + 2, closed_by=current + shift + 2)
        return webhook

    def test_an_open_stretch_gets_what_is_recorded_now(self, restored, witness):
        beside = Writer(lambda: subscribe(NOWHERE, Site)).has_written()
        places = [site() for _ in range(4)]
        beside.finish()
        assert sent_to(restored) == sent_to(witness) == [(CREATED, place.pk) for place in places]

    def test_a_closed_stretch_gets_nothing(self, restored, witness):
        Subscription.objects.filter(webhook=restored, until=None).delete()
        beside = Writer(lambda: subscribe(NOWHERE, Site)).has_written()
        place = site()
        beside.finish()
        assert sent_to(witness) == [(CREATED, place.pk)]
        assert sent_to(restored) == []

    def test_a_stretch_of_before_that_is_closed_here_is_closed_by_the_commit(self, restored, witness):
        closing = Writer(lambda: set_enabled(restored, False)).has_written()
        place = site()
        closing.finish()
        after = site()
        assert sent_to(restored) == [(CREATED, place.pk)]
        assert sent_to(witness) == [(CREATED, place.pk), (CREATED, after.pk)]

    def test_an_event_of_before_is_not_sent_to_a_webhook_that_was_made_since(self, webhook, witness):
        place = site()
        Event.objects.update(visible='900000000:900000000:')
        late = subscribe(NOWHERE, Site)
        assert sent_to(webhook) == [(CREATED, place.pk)]
        assert sent_to(late) == []


class TestOlderProcesses:
    """They store no snapshot, so numbers decide."""

    def test_an_event_without_it_goes_by_its_number(self, webhook, witness):
        place = site()
        Event.objects.update(visible=None)
        set_enabled(webhook, False)
        after = site()
        Event.objects.update(visible=None)
        assert sent_to(webhook) == [(CREATED, place.pk)]
        assert sent_to(witness) == [(CREATED, place.pk), (CREATED, after.pk)]

    def test_a_stretch_without_it_goes_by_its_numbers(self, webhook, witness):
        set_enabled(webhook, False)
        set_enabled(webhook, True)
        Subscription.objects.update(cluster=None, opened_by=None, closed_by=None)
        place = site()
        assert sent_to(webhook) == sent_to(witness) == [(CREATED, place.pk)]


@pytest.fixture
def plain_role(committed: None) -> Iterator[None]:
    """A plain user may not ask for the cluster."""
    grants = 'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES', 'ALL ON ALL SEQUENCES'
    with connection.cursor() as cursor:
        cursor.execute('REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; CREATE ROLE plain')
        for grant in grants:
            cursor.execute(f'GRANT {grant} IN SCHEMA public TO plain')
        cursor.execute('SET ROLE plain')
    subscription._cluster.cache_clear()
    yield
    with connection.cursor() as cursor:
        cursor.execute('RESET ROLE')
        cursor.execute('GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC; DROP OWNED BY plain; DROP ROLE plain')
    subscription._cluster.cache_clear()


def test_where_the_cluster_may_not_be_asked_the_numbers_decide(plain_role):
    webhook = subscribe(NOWHERE, Site)
    assert set(webhook.subscriptions.values_list('cluster', flat=True)) == {None}
    before = site()
    set_enabled(webhook, False)
    site()
    set_enabled(webhook, True)
    after = site()
    assert sent_to(webhook) == [(CREATED, before.pk), (CREATED, after.pk)]


def test_an_event_loses_what_was_needed_to_match_it_once_it_is_dispatched(webhook):
    place = site()
    with transaction.atomic():
        describe(place, 'first')
        describe(place, 'second')
    assert [(one.first_sequence is None, bool(one.visible)) for one in recorded(Site)] == [(True, True), (False, True)]
    dispatch_all()
    kept = ('first_sequence', 'visible', 'first_visible')
    assert list(Event.objects.values_list(*kept)) == [(None, None, None)] * 2
    assert len(changes(Site)) == 2
