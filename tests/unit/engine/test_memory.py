from webhooks.engine.each import first_within, portions


def test_the_first_that_weigh_no_more_together():
    assert first_within([3, 4, 5, 1], lambda weight: weight, 7) == [3, 4]
    assert first_within([3, 4], lambda weight: weight, 7) == [3, 4]


def test_one_at_least_however_much_it_weighs():
    assert first_within([9, 1], lambda weight: weight, 7) == [9]
    assert first_within([], lambda weight: weight, 7) == []


def test_portions_are_bounded_by_weight_and_by_number():
    assert [*portions([3, 4, 5, 1, 1, 1], lambda weight: weight, 7, 2)] == [[3, 4], [5, 1], [1, 1]]
