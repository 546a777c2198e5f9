"""Latest-only webhooks drop needless deliveries."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

import pytest

from webhooks.engine.deliver.fold import CREATED, DELETED, Folded, Heir, Waiting, fold

UPDATED = 'updated'
KINDS = {'c': CREATED, 'u': UPDATED, 'd': DELETED}
# Restatements.
RESTATED = {'r': UPDATED, 'n': CREATED}
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
NEW = {'kind': CREATED, 'prechange': None}


def waiting(steps: str) -> list[Waiting]:
    """A letter makes a delivery, 'r' a restatement, 'n' one of a creation.

    'u!' was attempted; 'u?' may have been seen otherwise.
    """
    found: list[Waiting] = []
    for letter in steps:
        if kind := (KINDS | RESTATED).get(letter):
            found.append(Waiting(len(found) + 1, kind, NOW, False, letter in RESTATED, False, False))
        else:
            found[-1] = found[-1]._replace(is_attempted=letter == '!', is_seen=True)
    return found


def apply(before: Sequence[Waiting], folded: Folded) -> list[Waiting]:
    heirs = {heir.pk: heir for heir in folded.heirs}
    return [_inherit(one, heirs.get(one.pk)) for one in before if one.pk not in folded.closed]


def _inherit(one: Waiting, heir: Heir | None) -> Waiting:
    if heir is None:
        return one
    kind, is_seen = heir.span.get('kind', one.kind), heir.span.get('seen', False)
    return Waiting(one.pk, kind, heir.due_at, heir.backfill, one.restates, False, is_seen)


@pytest.mark.parametrize(
    ('steps', 'left'),
    [
        ('', []),
        ('c', [(1, CREATED)]),
        ('u', [(1, UPDATED)]),
        ('d', [(1, DELETED)]),
        ('cuu', [(3, CREATED)]),
        ('uuu', [(3, UPDATED)]),
        ('uud', [(3, DELETED)]),
        ('cd', []),
        ('cuud', []),
        # A reused primary key: receivers need both the deletion and the creation.
        ('dcu', [(1, DELETED), (3, CREATED)]),
        ('udcuu', [(2, DELETED), (5, CREATED)]),
        ('cdcu', [(4, CREATED)]),
        ('dcd', [(1, DELETED)]),
        # The creation did not meet the conditions.
        ('udu', [(2, DELETED), (3, UPDATED)]),
        # The deletion before is in hand.
        ('ucu', [(1, UPDATED), (3, CREATED)]),
        # The receiver may know the object.
        ('c!d', [(2, DELETED)]),
        ('c?ud', [(3, DELETED)]),
        ('cu!d', [(3, DELETED)]),
        ('c?u', [(2, CREATED)]),
        # An attempted delivery is closed, but closes no other.
        ('u!u', [(2, UPDATED)]),
        ('uu!', [(1, UPDATED), (2, UPDATED)]),
        ('uuu!', [(2, UPDATED), (3, UPDATED)]),
        ('cu!u', [(3, CREATED)]),
        ('cud!', [(2, CREATED), (3, DELETED)]),
        ('u!u!', [(1, UPDATED), (2, UPDATED)]),
    ],
)
def test_waiting_changes_are_folded_into_those_that_say_the_same(steps: str, left: list[tuple[int, str]]):
    before = waiting(steps)
    assert [(one.pk, one.kind) for one in apply(before, fold(before))] == left


@pytest.mark.parametrize(
    ('steps', 'left', 'doubtful'),
    [
        ('ur', [1, 2], (2, 1)),
        ('ru', [2], None),
        ('rur', [2, 3], (3, 2)),
        ('curu', [4], None),
        ('cur', [2, 3], (3, 2)),
        ('urr', [1, 3], (3, 1)),
        ('rr', [2], None),
        ('nr?', [2], None),
        ('n?u', [2], None),
        ('rd', [2], None),
        ('crd', [], None),
        # The receiver may ignore what comes again under an id that it knows.
        ('u!r', [1, 2], None),
        ('u!ru', [3], None),
        ('r!u', [2], None),
        ('ru!', [1, 2], None),
        ('ur!', [1, 2], None),
    ],
)
def test_no_restatement_replaces_a_change(steps: str, left: list[int], doubtful: tuple[int, int] | None):
    before = waiting(steps)
    folded = fold(before)
    assert [one.pk for one in apply(before, folded)] == left
    assert folded.maybe_repeated == doubtful


def test_a_change_says_nothing_of_the_restatements_that_it_replaces():
    assert fold(waiting('n?ru')).heirs == []
    assert [heir.first for heir in fold(waiting('r?uru')).heirs] == [2]


@pytest.mark.parametrize(
    ('steps', 'span', 'first', 'side'),
    [
        ('uu', {}, 1, 'prechange'),
        ('ud', {}, 1, 'prechange'),
        ('cu', NEW, None, 'postchange'),
        ('c!u', NEW | {'seen': True}, 1, 'postchange'),
        ('cu?u', NEW | {'seen': True}, 1, 'postchange'),
        ('c!ud', {}, 1, 'postchange'),
        ('c!u!ud', {}, 2, 'postchange'),
        ('u!u!ud', {}, 1, 'prechange'),
        ('dcu', NEW, None, 'postchange'),
    ],
)
def test_an_heir_spans_the_changes_that_it_replaces(steps: str, span: dict, first: int | None, side: str):
    (heir,) = fold(waiting(steps)).heirs
    assert (heir.span, heir.first, heir.side) == (span, first, side)


@pytest.mark.parametrize(
    ('minutes', 'expected'), [((5, 3), 3), ((None, 3), 3), ((3, None), 3), ((0, 9), 0), ((None, None), None)]
)
def test_the_heir_goes_as_early_as_the_earliest(minutes: tuple[int | None, ...], expected: int | None):
    def moment(after: int | None) -> datetime | None:
        return None if after is None else NOW + timedelta(minutes=after)

    before = [one._replace(due_at=moment(after)) for one, after in zip(waiting('uu'), minutes, strict=True)]
    assert fold(before).heirs[0].due_at == moment(expected)


@pytest.mark.parametrize('backfills', list(product((False, True), repeat=3)))
def test_the_heir_is_of_a_backfill_if_all_were(backfills: tuple[bool, ...]):
    before = [one._replace(backfill=backfill) for one, backfill in zip(waiting('uuu'), backfills, strict=True)]
    assert fold(before).heirs[0].backfill is all(backfills)


#
# Every history of an object, with any part attempted
#


def histories(most: int = 5) -> Iterator[str]:
    for length in range(most + 1):
        for letters in product('cud', repeat=length):
            if all((after == 'c') == (before == 'd') for before, after in pairwise(letters)):
                yield ''.join(letters)


def attempted(history: str) -> Iterator[str]:
    for marks in product(('', '!'), repeat=len(history)):
        yield ''.join(letter + mark for letter, mark in zip(history, marks, strict=True))


ALL = [steps for history in histories() for steps in attempted(history)]


def known_after(told: Sequence[Waiting]) -> int | None:
    last = told[-1]
    return None if last.kind == DELETED else last.pk


def test_the_receiver_ends_with_the_same():
    for steps in ALL:
        before = waiting(steps)
        after = apply(before, fold(before))
        if after:
            assert known_after(after) == known_after(before), steps
        elif before:
            assert known_after(before) is None, steps
            assert not any(one.is_seen for one in before), steps


def test_neither_a_deletion_nor_a_creation_is_lost():
    """Told creations follow only deletions, and a known object's deletion is told."""
    for steps in ALL:
        before = waiting(steps)
        told = [one.kind for one in apply(before, fold(before))]
        for kind, other in pairwise(told):
            assert (other == CREATED) <= (kind == DELETED), steps
        if steps and steps[0] != 'c':
            assert told.count(DELETED) >= 1 or 'd' not in steps, steps


def test_an_attempted_change_says_the_same_again_and_closes_no_other():
    for steps in ALL:
        before = waiting(steps)
        folded = fold(before)
        tried = {one.pk for one in before if one.is_attempted}
        assert not tried & {heir.pk for heir in folded.heirs}, steps
        for closed in folded.closed:
            later = [one for one in before if one.pk > closed]
            gone = before[closed - 1].kind == DELETED
            assert gone or any(not one.is_attempted for one in later), steps


def test_nothing_is_closed_twice_or_out_of_order():
    for steps in ALL:
        folded = fold(waiting(steps))
        assert folded.closed == sorted(set(folded.closed)), steps
        assert not set(folded.closed) & {heir.pk for heir in folded.heirs}, steps


def test_to_fold_again_changes_nothing():
    for steps in ALL:
        before = waiting(steps)
        after = apply(before, fold(before))
        assert apply(after, fold(after)) == after, steps


def test_step_by_step_it_comes_to_the_same():
    for steps in histories(7):
        at_once = apply(waiting(steps), fold(waiting(steps)))
        one_by_one: list[Waiting] = []
        for one in waiting(steps):
            one_by_one = apply([*one_by_one, one], fold([*one_by_one, one]))
        assert one_by_one == at_once, steps


def test_restatements_between_changes_close_none_and_keep_none():
    """The changes come to the same without them."""
    for history in histories(4):
        for gaps in product(('', 'r'), repeat=len(history) + 1):
            mixed = waiting(''.join(gap + letter for gap, letter in zip(gaps, f'{history} ', strict=True)).strip())
            changes = [one for one in mixed if not one.restates]
            folded, alone = fold(mixed), fold(changes)
            assert [pk for pk in folded.closed if not mixed[pk - 1].restates] == alone.closed, mixed
            assert folded.heirs == alone.heirs, mixed
