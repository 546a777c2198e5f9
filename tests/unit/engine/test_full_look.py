"""A full look costs at most a twentieth of the time, but no look is put off for long."""

import pytest

from webhooks.engine.each import FullLook


@pytest.mark.parametrize(('took', 'waits'), [(0.0, 1.0), (0.04, 1.0), (0.2, 4.0), (0.6, 10.0), (7.5, 10.0)])
def test_a_slow_look_puts_off_the_next(took: float, waits: float):
    look = FullLook()
    assert look.is_due(100.0)
    look.note(began=100.0, ended=100.0 + took)
    assert not look.is_due(99.9 + took + waits)
    assert look.is_due(100.1 + took + waits)
