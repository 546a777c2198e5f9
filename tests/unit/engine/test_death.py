"""What a suspect's process died of, and whether the suspect is to blame."""

import os
import signal

import pytest

from webhooks.engine.death import DEATHS, INTERRUPTED, cause, is_last, sentence


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
@pytest.mark.parametrize('code', [os.CLD_KILLED, os.CLD_DUMPED])
def test_a_signal_is_a_cause(code: int, number: int):
    assert cause(code, number) == f'signal {int(number)}'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_what_somebody_ends_has_no_cause(number: int):
    assert cause(os.CLD_KILLED, number) is None


def test_an_exit_status_is_a_cause_unless_the_work_was_done_or_broken_off():
    assert cause(os.CLD_EXITED, 1) == 'exit status 1'
    assert cause(os.CLD_EXITED, os.EX_OK) is None
    assert cause(os.CLD_EXITED, INTERRUPTED) is None


def test_the_number_of_a_signal_is_not_taken_for_an_exit_status():
    assert cause(os.CLD_EXITED, signal.SIGTERM) == 'exit status 15'
    assert cause(os.CLD_KILLED, signal.SIGALRM) == 'signal 14'


def test_the_third_death_is_the_last():
    assert [is_last(deaths) for deaths in range(5)] == [False, False, False, True, True]


def test_the_error_says_how_often_it_died_and_what_of():
    assert [sentence(deaths, 'signal 9') for deaths in range(1, DEATHS + 1)] == [
        'its process died once (signal 9)',
        'its process died twice (signal 9)',
        'its process died 3 times (signal 9)',
    ]
