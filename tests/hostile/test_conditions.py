import json
from typing import Any

import pytest
from dcim.models import Site
from extras.conditions import InvalidCondition
from support.builders import NOWHERE, site, subscribe
from support.engine import deliveries, in_thread, work

from devstack.receiver import Receiver
from webhooks.constants import MAX_CONDITIONS
from webhooks.engine.dispatch import matching

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/webhooks/'
WITHOUT_END = {'attr': 'name', 'op': 'regex', 'value': '(a+)+$'}
# Compiling takes half a minute: each range is read character by character.
SLOW_TO_COMPILE = {'attr': 'name', 'op': 'regex', 'value': '(?i)' + '[\x01-\U0010ffff]' * 100}


class TestSaving:
    @pytest.mark.parametrize(
        'value',
        [
            {'attr': 'name', 'op': 'like', 'value': 'x'},
            {'attr': 'name', 'op': 'regex', 'value': '('},
            {'attr': 'name', 'op': 'regex', 'value': '(' * 2000 + ')' * 2000},
            {'attr': 'name', 'op': 'regex', 'value': 'x{99999999999}'},
            {'attr': 'name', 'op': 'regex', 'value': '(?<=a*)b'},
            {'and': [{'or': [{'attr': 'name', 'op': 'regex', 'value': '['}]}]},
            SLOW_TO_COMPILE,
        ],
        ids=lambda value: json.dumps(value)[:50],
    )
    def test_conditions_that_cannot_be_compiled_are_an_error_of_their_field(self, api_client, value: Any):
        webhook = subscribe(NOWHERE, Site)
        answer = api_client.patch(f'{API}{webhook.pk}/', {'conditions': value}, format='json')
        assert answer.status_code == 400
        assert list(answer.data) == ['conditions']
        assert api_client.patch(f'{API}{webhook.pk}/', {'conditions': WITHOUT_END}, format='json').status_code == 200

    def test_many_that_each_are_quick_to_compile_are_refused(self, api_client):
        webhook = subscribe(NOWHERE, Site)
        # Each is different, and takes some milliseconds.
        patterns = [f'(?i){number}[\x01-\u3fff]' for number in range(MAX_CONDITIONS)]
        for some, status in ((patterns, 400), (patterns[:1], 200)):
            value = {'or': [{'attr': 'name', 'op': 'regex', 'value': pattern} for pattern in some]}
            answer = api_client.patch(f'{API}{webhook.pk}/', {'conditions': value}, format='json')
            assert answer.status_code == status
            assert status == 200 or 'it takes more than 0.05 seconds' in str(answer.data['conditions'])

    def test_more_conditions_than_a_hundred_are_refused_however_they_are_nested(self, api_client):
        """Each event evaluates all of them, and each may read thousands of VLANs."""
        webhook = subscribe(NOWHERE, Site)
        condition = {'attr': 'name', 'value': 'x'}
        for count, status in ((20_000, 400), (51, 400), (50, 200)):
            value = {'or': [{'and': [condition, condition]}] * count}
            answer = api_client.patch(f'{API}{webhook.pk}/', {'conditions': value}, format='json')
            assert answer.status_code == status
            assert status == 200 or list(answer.data) == ['conditions']


class TestEvaluating:
    def test_a_regular_expression_without_an_end_is_given_up_in_any_thread(self):
        reasons, data = [], {'name': 'a' * 40 + '!'}

        def evaluate() -> None:
            try:
                matching.are_met(WITHOUT_END, data)
            except InvalidCondition as error:
                reasons.append(str(error))

        thread = in_thread(evaluate)
        thread.join(60)
        assert not thread.is_alive()
        assert 'it takes more than 0.05 seconds' in reasons[0]

    def test_a_slow_condition_stops_no_other_webhook(self, receiver: Receiver):
        subscribe(receiver.url('/slow'), Site, conditions=WITHOUT_END)
        subscribe(receiver.url('/fine'), Site, conditions={**WITHOUT_END, 'value': 'a+!'})
        site(name='a' * 40 + '!')
        work()
        assert [request.path for request in receiver.wait_for(1)] == ['/fine']
        assert len(deliveries()) == 1

    def test_a_name_that_is_not_there_writes_one_line_into_the_log(self, caplog: pytest.LogCaptureFixture):
        forged = 'x\nERROR webhooks.delivery delivery=1 status=failed\x1b[2J\u2028'
        for condition in ({'attr': forged, 'value': 'x'}, {'attr': forged, 'op': 'regex', 'value': 'x'}):
            subscribe(NOWHERE, Site, conditions=condition)
        site()
        work()
        messages = [record.getMessage() for record in caplog.records if 'conditions=' in record.getMessage()]
        assert len(messages) == 2
        assert all(r'x\nERROR webhooks.delivery delivery=1 status=failed\x1b[2J\u2028' in one for one in messages)
        assert not deliveries()
