"""How much a worker holds at a time: small payloads by their number, large ones by their size."""

from webhooks.engine.memory import LARGE, ROOM, Payload, Room, first_within

HALF = ROOM // 2


def test_the_first_that_weigh_no_more_together():
    assert first_within([3, 4, 5, 1], lambda weight: weight, 7) == [3, 4]
    assert first_within([3, 4], lambda weight: weight, 7) == [3, 4]


def test_one_at_least_however_much_it_weighs():
    assert first_within([9, 1], lambda weight: weight, 7) == [9]
    assert first_within([], lambda weight: weight, 7) == []


class TestRoom:
    def test_small_payloads_need_none(self):
        assert Room().take([Payload(pk, 1, LARGE) for pk in range(2 * ROOM // LARGE)]) == {}

    def test_large_ones_go_as_long_as_there_is_room(self):
        room = Room()
        assert room.take([Payload(1, 10, HALF), Payload(2, 20, HALF), Payload(3, 30, HALF)]) == {3: 30}
        assert room.waiting == {30}

    def test_a_webhook_has_half_of_it(self):
        """Its endpoint may hang: there is room for those of others."""
        room = Room()
        assert room.take([Payload(1, 10, HALF), Payload(2, 10, LARGE + 1)]) == {2: 10}
        assert room.waiting == {10}
        assert room.take([Payload(3, 20, HALF)]) == {}

    def test_a_webhook_whose_half_is_taken_goes_on_once_its_own_are_gone(self):
        room = Room()
        room.take([Payload(1, 10, HALF - LARGE), Payload(2, 20, HALF), Payload(3, 10, HALF)])
        assert room.take([Payload(4, 10, LARGE)]) == {}
        assert room.take([Payload(5, 10, LARGE + 1)]) == {5: 10}
        assert room.keep([1, 2]) is False
        assert room.keep([2]) is True
        assert room.waiting == set()
        assert room.take([Payload(3, 10, HALF)]) == {}

    def test_what_is_larger_than_the_room_goes_alone(self):
        room = Room()
        assert room.take([Payload(1, 10, 2 * ROOM), Payload(2, 20, LARGE + 1)]) == {2: 20}
        assert room.keep([]) is True
        assert room.take([Payload(2, 20, LARGE + 1)]) == {}

    def test_nobody_passes_one_that_waits(self):
        """Otherwise a large one would wait as long as there are smaller ones."""
        room = Room()
        assert room.take([Payload(1, 10, HALF), Payload(2, 20, ROOM)]) == {2: 20}
        assert room.take([Payload(3, 30, LARGE + 1)]) == {3: 30}
        assert room.waiting == {20, 30}

    def test_small_ones_pass_it(self):
        room = Room()
        room.take([Payload(1, 10, ROOM), Payload(2, 20, ROOM)])
        assert room.take([Payload(3, 30, LARGE)]) == {}

    def test_room_comes_back_with_what_is_no_longer_in_hand(self):
        room = Room()
        room.take([Payload(1, 10, HALF), Payload(2, 20, HALF)])
        assert room.keep([2, 7]) is False
        assert room.take([Payload(3, 10, HALF)]) == {}

    def test_those_that_wait_go_on_once_all_large_ones_are_gone(self):
        room = Room()
        room.take([Payload(1, 10, HALF), Payload(2, 20, HALF), Payload(3, 30, HALF)])
        assert room.keep([1]) is False
        assert room.waiting == {30}
        assert room.keep([]) is True
        assert room.waiting == set()
        assert room.keep([]) is False
