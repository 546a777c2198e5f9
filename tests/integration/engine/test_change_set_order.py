import pytest

from webhooks.engine.deliver import lane
from webhooks.engine.deliver.change_sets import LOOSE, OPTIONAL, REQUIRED, Change, place, ranks, split

# Ranks of models.
REGION, SITE, DEVICE = range(3)


@pytest.mark.parametrize(
    ('earlier', 'later'),
    [
        (('created', REGION, 2), ('created', SITE, 1)),
        (('created', SITE, 1), ('created', SITE, 2)),
        (('created', DEVICE, 9), ('updated', REGION, 1)),
        (('updated', REGION, 2), ('updated', SITE, 1)),
        (('updated', DEVICE, 9), ('deleted', DEVICE, 1)),
        (('deleted', DEVICE, 2), ('deleted', SITE, 1)),
        (('deleted', SITE, 2), ('deleted', REGION, 1)),
        (('deleted', SITE, 1), ('deleted', SITE, 2)),
    ],
)
def test_an_object_is_created_before_and_deleted_after_those_that_refer_to_it(earlier, later):
    assert place(*earlier) < place(*later)


@pytest.mark.parametrize(
    ('keys', 'order'),
    [
        ({'site': {'region': LOOSE}, 'device': {'site': REQUIRED}}, ['region', 'site', 'device']),
        # A device's primary address is on its own interface.
        (
            {'device': {'address': LOOSE}, 'address': {'interface': OPTIONAL}, 'interface': {'device': REQUIRED}},
            ['device', 'interface', 'address'],
        ),
        # A bay may be in another module.
        ({'module': {'bay': REQUIRED}, 'bay': {'module': OPTIONAL, 'device': REQUIRED}}, ['device', 'bay', 'module']),
    ],
)
def test_a_model_comes_after_those_that_it_points_to(keys, order):
    found = ranks(keys)
    assert sorted(found, key=found.get) == order


def test_models_that_need_each_other_get_an_order_all_the_same():
    assert len(set(ranks({'a': {'b': REQUIRED}, 'b': {'a': REQUIRED}}).values())) == 2


def changes(*sizes: int) -> list[Change]:
    return [Change(pk, pk, 1, 'created', size) for pk, size in enumerate(sizes, 1)]


@pytest.mark.parametrize(
    ('sizes', 'parts'),
    [
        ([1, 1, 1], [[1, 2, 3]]),
        ([60, 40, 1], [[1, 2], [3]]),
        ([60, 41, 59], [[1], [2, 3]]),
        ([500, 1, 500], [[1], [2], [3]]),
        ([0] * 12, [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11, 12]]),
        ([], []),
    ],
)
def test_it_is_split_by_bytes_and_by_number(monkeypatch, sizes, parts):
    monkeypatch.setattr(lane, 'PART_BYTES', 100)
    monkeypatch.setattr(lane, 'PART_DELIVERIES', 10)
    assert [[one.pk for one in part] for part in split(changes(*sizes))] == parts
