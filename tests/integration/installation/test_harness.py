"""A test bed that leaks from test to test proves nothing."""

import json
import urllib.request

import pytest
from dcim.models import Site
from django.db import connection
from users.models import User

from devstack.failure import StartFailed


@pytest.mark.parametrize('_turn', [1, 2])
def test_a_rolled_back_test_sees_nothing_of_others(api_client, _turn):
    api_client.post('/api/dcim/sites/', {'name': 'Bern', 'slug': 'bern'}, format='json')
    assert Site.objects.count() == 1


@pytest.mark.parametrize('_turn', [1, 2])
def test_a_committed_test_sees_nothing_of_others(committed, api_client, _turn):
    answer = api_client.post('/api/dcim/sites/', {'name': 'Bern', 'slug': 'bern'}, format='json')
    assert answer.status_code == 201
    assert Site.objects.count() == 1
    assert not connection.in_atomic_block


@pytest.mark.parametrize('_turn', [1, 2])
def test_not_even_users_are_left_by_a_test(netbox_user, _turn):
    assert list(User.objects.all()) == [netbox_user]


def test_the_server_sees_what_a_test_commits(netbox_server, api_token):
    Site.objects.create(name='Genf', slug='genf')
    request = urllib.request.Request(f'{netbox_server.url}api/dcim/sites/', headers={'Authorization': api_token})
    assert json.load(urllib.request.urlopen(request))['count'] == 1


def test_a_worker_of_its_own_takes_jobs(rqworker, stack):
    from core.models import Job
    from django_rq import get_queue

    worker = rqworker('low')
    job = get_queue('low').enqueue('time.time')
    assert worker.child.running
    from devstack.process import wait_until

    assert wait_until(lambda: job.get_status(refresh=True) == 'finished', timeout=60)
    assert not Job.objects.filter(status='failed').exists()


def test_waiting_jobs_run_in_this_process(committed, drain):
    from django_rq import get_queue

    job = get_queue('low').enqueue('time.time')
    drain()
    assert job.get_status(refresh=True) == 'finished'


def test_the_tasks_redis_can_be_stopped(committed, tasks_redis):
    tasks_redis.stop()
    assert not tasks_redis.server.answers()
    tasks_redis.start()
    assert tasks_redis.server.answers()
    tasks_redis.stop()


def test_the_tasks_redis_is_running_again_after_a_test_that_stopped_it(committed, tasks_redis):
    assert tasks_redis.server.answers()


def test_a_command_in_a_fork_says_what_it_says_and_fails_as_any_other(netbox):
    assert 'well' in netbox.warm.run('shell', '--no-imports', '-c', 'print("well")')
    with pytest.raises(StartFailed, match='badly'):
        netbox.warm.run('shell', '--no-imports', '-c', 'raise RuntimeError("badly")')
