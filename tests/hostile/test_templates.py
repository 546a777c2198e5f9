"""Templates run in children here, and an alarm ends a child that hangs."""

import mmap
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.db import connection
from support.builders import NOWHERE, site, subscribe
from support.cases import first
from support.chaos.victims import Children, die
from support.engine import deliveries, in_thread, work

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.constants import MAX_TEMPLATE_CHARS
from webhooks.engine.deliver import lane
from webhooks.models import Webhook
from webhooks.templating import renderer
from webhooks.templating.errors import RenderError

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

# Seconds until a child counts as hanging.
HANGS = 60
TOO_SLOW, TOO_LARGE = 'the template takes more than 2 seconds', 'the template needs too much memory'

# Python cannot interrupt these, and other threads stop meanwhile.
ATTACKS = {
    'two lists nested forty deep are compared': (
        '{% set p=namespace(a=[1]) %}{% set q=namespace(a=[1]) %}'
        '{% for i in range(40) %}{% set p.a=[p.a,p.a] %}{% set q.a=[q.a,q.a] %}{% endfor %}'
        "{{ [p,q]|max(attribute='a') }}"
    ),
    'lists are added one by one': '{{ ([[1]]*490000)|sum(start=[]) }}',
    'addresses are looked for': "{{ ('.'*60000~'a.')|urlize }}",
}
GROWING = '{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}'
WITHOUT_END = '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}'


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.kill_all()


@pytest.fixture
def in_a_child(children: Children) -> Callable[[Callable[[], Any]], bool]:
    """Return whether the function came back without error. A child is killed after HANGS seconds."""

    def run(function: Callable[[], Any]) -> bool:
        def guarded() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HANGS)
            try:
                function()
            except BaseException:
                traceback.print_exc()
                raise

        return children.ends_well(children.fork(guarded))

    return run


def appears(condition: Callable[[], Any]) -> bool:
    return wait_until(condition, timeout=60)


def host_of(receiver: Receiver) -> str:
    return receiver.url('').removeprefix('http://').rstrip('/')


def preview(client: Any, webhook: Webhook, template: str) -> Any:
    url = f'/api/plugins/webhooks/webhooks/{webhook.pk}/preview/'
    return client.post(url, {'body_template': template}, format='json')


def of_this_process() -> dict[str, Callable]:
    return {
        'pid': lambda _: os.getpid(),
        'parent': lambda _: os.getppid(),
        'threads': lambda _: len(os.listdir('/proc/self/task')),
        'die': lambda _: die(),
        'backend': lambda _: backend(),
        'sockets': lambda _: sum(os.readlink(f'/proc/self/fd/{one}').startswith('socket:') for one in descriptors()),
    }


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_backend_pid()')
        return cursor.fetchone()[0]


def descriptors() -> list[int]:
    return [int(name) for name in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{name}')]


def is_alive(pid: int) -> bool:
    """It must not be gone or a zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


class TestPreview:
    @pytest.fixture
    def webhook(self, api_client) -> Webhook:
        """The first preview takes long, and must not count as attack."""
        site(name='Bern')
        webhook = subscribe(NOWHERE, Site)
        assert preview(api_client, webhook, '{{ data.name }}').data['body'] == 'Bern'
        return webhook

    # A worker meets them all. `--long`: a preview too.
    @pytest.mark.parametrize('template', first(1, [*ATTACKS.values()]), ids=ATTACKS)
    def test_an_attack_gets_a_reason_in_time(self, webhook: Webhook, api_client, in_a_child, template: str):
        def attack() -> None:
            answer = preview(api_client, webhook, template)
            assert answer.status_code == 400
            assert TOO_SLOW in str(answer.data['body_template'])

        assert in_a_child(attack)

    def test_others_are_answered_while_an_attack_is_rendered(self, webhook: Webhook, api_client, in_a_child):
        def attack() -> None:
            reasons = []
            template = ATTACKS['lists are added one by one']
            thread = in_thread(lambda: reasons.append(preview(api_client, webhook, template).data))
            assert appears(lambda: len(children_of(os.getpid())) == 1)
            assert preview(api_client, webhook, '{{ data.name }}').data['body'] == 'Bern'
            thread.join()
            assert TOO_SLOW in str(reasons)

        assert in_a_child(attack)

    def test_too_much_memory_is_refused(self, webhook: Webhook, api_client, in_a_child):
        def attack() -> None:
            assert TOO_LARGE in str(preview(api_client, webhook, GROWING).data['body_template'])

        assert in_a_child(attack)

    def test_others_have_their_memory_while_a_template_is_rendered(self, webhook: Webhook, api_client, in_a_child):
        def attack() -> None:
            reasons = []
            thread = in_thread(lambda: reasons.append(preview(api_client, webhook, WITHOUT_END).data))
            while thread.is_alive():
                mmap.mmap(-1, 2**30).close()
                thread.join(0.01)
            assert TOO_SLOW in str(reasons)

        assert in_a_child(attack)

    def test_a_template_that_ends_its_process_ends_no_other(self, webhook: Webhook, api_client, settings, in_a_child):
        settings.JINJA_FILTERS = of_this_process()

        def attack() -> None:
            assert 'stopped the process' in str(preview(api_client, webhook, '{{ 1|die }}').data['body_template'])
            assert preview(api_client, webhook, '{{ data.name }}').data['body'] == 'Bern'

        assert in_a_child(attack)

    def test_each_has_a_process_which_ends_with_it(self, webhook: Webhook, api_client, settings):
        settings.JINJA_FILTERS = of_this_process()
        first, second = (int(preview(api_client, webhook, '{{ 1|pid }}').data['body']) for _ in range(2))
        assert len({first, second, os.getpid()}) == 3
        assert not is_alive(first)
        assert not is_alive(second)
        assert is_alive(os.getpid())

    def test_a_renderer_dies_with_its_web_process(
        self, webhook: Webhook, api_client, children: Children, settings, tmp_path
    ):
        note = tmp_path / 'pid'

        def wait(_value: object) -> None:
            note.write_text(str(os.getpid()))
            threading.Event().wait()

        settings.JINJA_FILTERS = {'wait': wait}
        pid = children.fork(lambda: preview(api_client, webhook, '{{ 1|wait }}'))
        assert appears(lambda: note.exists() and note.read_text())
        children.kill(pid)
        assert appears(lambda: not is_alive(int(note.read_text())))


def children_of(pid: int) -> list[int]:
    tasks = Path(f'/proc/{pid}/task')
    return [int(child) for task in tasks.iterdir() for child in (task / 'children').read_text().split()]


class TestConnections:
    """A renderer is a fork: it neither uses nor closes its parent's connections."""

    def test_a_filter_asks_the_database_by_a_connection_of_its_own(self, api_client, settings):
        settings.JINJA_FILTERS = of_this_process()
        site()
        ours = backend()
        body = preview(api_client, subscribe(NOWHERE, Site), '{{ 1|backend }} {{ 1|backend }}').data['body']
        first, second = map(int, body.split())
        assert first == second != ours
        assert backend() == ours

    def test_no_socket_of_the_parent_stays_open(self, api_client, settings):
        settings.JINJA_FILTERS = of_this_process()
        site()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert preview(api_client, subscribe(NOWHERE, Site), '{{ 1|sockets }}').data['body'] == '1'
            ours.sendall(b'open')
            assert theirs.recv(4) == b'open'


class TestWorker:
    @pytest.mark.parametrize('template', ATTACKS.values(), ids=ATTACKS)
    def test_an_attack_fails_its_own_delivery_only(self, receiver: Receiver, in_a_child, template: str):
        subscribe(receiver.url('/attack'), Site, body_template=template)
        subscribe(receiver.url('/plain'), Site)
        subscribe(receiver.url('/template'), Site, body_template='{{ data.name }}')
        site(name='Bern')
        assert in_a_child(work)
        (failed,) = deliveries('failed')
        assert failed.error.startswith(f'not sent: body_template: {TOO_SLOW}')
        assert sorted(request.path for request in receiver.requests) == ['/plain', '/template']
        assert len(deliveries('delivered')) == 2

    def test_one_renderer_does_all(self, receiver: Receiver, settings, monkeypatch):
        """Slow webhooks would get a second renderer."""
        monkeypatch.setattr(lane, 'SLOW_BUILD_SECONDS', 60)
        settings.JINJA_FILTERS = of_this_process()
        subscribe(receiver.url('/'), Site, body_template='{{ 1|pid }} {{ 1|threads }}')
        for _ in range(5):
            site()
        work()
        (said,) = {request.body for request in receiver.wait_for(5)}
        pid, threads = map(int, said.split())
        assert pid != os.getpid()
        assert threads == 1

    def test_it_is_replaced_where_a_template_ended_it(self, receiver: Receiver, settings):
        settings.JINJA_FILTERS = of_this_process()
        for template in ('{{ data.name }}', '{{ 1|die }}', '{{ data.name }}'):
            subscribe(receiver.url('/'), Site, body_template=template)
        site(name='Bern')
        work()
        assert [request.body for request in receiver.wait_for(2)] == [b'Bern', b'Bern']
        assert 'stopped the process' in deliveries('failed')[0].error

    def test_the_next_one_has_no_locks_that_other_threads_hold(self, settings):
        lock = threading.Lock()

        def locked(text: str) -> str:
            with lock:
                return text

        settings.JINJA_FILTERS = {'locked': locked, **of_this_process()}
        with renderer.kept(lambda: True), lock:
            for template in ('{{ 1|die }}', '{{ 1|locked }}'):
                if 'die' in template:
                    with pytest.raises(RenderError, match='stopped the process'):
                        renderer.render(template, '{}')
                else:
                    assert renderer.render(template, '{}') == '1'
        with lock, pytest.raises(RenderError, match=TOO_SLOW):
            renderer.render('{{ 1|locked }}', '{}')

    def test_a_spawner_that_was_killed_is_replaced(self, settings):
        settings.JINJA_FILTERS = of_this_process()
        with renderer.kept(lambda: True):
            spawner = int(renderer.render('{{ 1|parent }}', '{}'))
            assert spawner != os.getpid()
            os.kill(spawner, signal.SIGKILL)
            assert appears(lambda: not is_alive(spawner))
            assert int(renderer.render('{{ 1|parent }}', '{}')) not in (spawner, os.getpid())

    def test_all_die_with_the_job(self, children: Children, settings):
        settings.JINJA_FILTERS = {'wait': lambda _: threading.Event().wait()}

        def job() -> None:
            with renderer.kept(lambda: True):
                renderer.render('{{ 1|wait }}', '{}')

        pid = children.fork(job)
        assert appears(lambda: [one for spawner in children_of(pid) for one in children_of(spawner)])
        spawners = children_of(pid)
        (one,) = (renderer for spawner in spawners for renderer in children_of(spawner))
        children.kill(pid)
        assert appears(lambda: not any(map(is_alive, [*spawners, one])))

    def test_without_templates_no_process_is_there_for_them(self, receiver: Receiver, in_a_child):
        def job(processes: int) -> None:
            work()
            assert len(children_of(os.getpid())) == processes

        subscribe(receiver.url('/'), Site)
        site()
        assert in_a_child(lambda: job(0))
        Webhook.objects.update(body_template='{{ data.name }}')
        site()
        assert in_a_child(lambda: job(3))  # one for each thread
        assert len(receiver.requests) == 2


class TestContexts:
    """No template sees changes made by another."""

    def test_a_body_does_not_turn_the_host_to_which_a_stored_header_goes(self, receiver: Receiver):
        with Receiver() as thief:
            turn = "{% set _ = data.update({'facility': 'ELSEWHERE'}) %}{{ data.facility }}"
            subscribe(
                'http://{{ data.facility }}/',
                Site,
                additional_headers='Authorization: Bearer s3cret',
                body_template=turn.replace('ELSEWHERE', host_of(thief)),
            )
            site(facility=host_of(receiver))
            work()
            (request,) = receiver.wait_for(1)
            assert request.body.decode() == host_of(thief)
            assert request.header('Authorization') == 'Bearer s3cret'
            assert thief.requests == []


class TestHost:
    """An object's name may be part of a host, and must not end it."""

    def test_a_value_that_would_end_the_host_fails_the_delivery(self, receiver: Receiver):
        cases = (
            ('http://{{ data.facility }}.hooks.example:9/in', 'HOST/'),
            ('http://{{ data.facility }}.hooks.example:9/in', 'HOST?'),
            ('http://{{ data.facility }}.hooks.example:9/in', 'HOST#'),
            ('http://{{ data.facility }}.hooks.example:9/in', 'HOST\\'),
            ('http://hooks.example{{ data.facility }}/in', '@HOST'),
            ('http://hooks.example{{ data.facility }}', '@HOST/'),
            ('{% set f = data.facility %}http://{{ f }}.hooks.example:9/', 'HOST/'),
            ('{% if true %}http://{% endif %}{{ data.facility }}.hooks.example:9/', 'HOST/'),
            ('http://{% for c in data.facility %}{{ c }}{% endfor %}.hooks.example:9/', 'HOST/'),
            ('http://{% filter lower %}{{ data.facility }}{% endfilter %}.hooks.example:9/', 'HOST/'),
            ('http://{% macro m() %}{{ caller() }}{% endmacro %}'
             '{% call m() %}{{ data.facility }}{% endcall %}.hooks.example:9/', 'HOST/'),
            ('{{ data.facility }}://hooks.example:9/', 'http://HOST/?'),
        )  # fmt: skip
        for url, facility in cases:
            made = site(facility=facility.replace('HOST', host_of(receiver)))
            only = {'conditions': {'attr': 'id', 'value': made.pk}}
            subscribe(url, Site, additional_headers='Authorization: Bearer s3cret', **only)
            made.save()
        work()
        failed = deliveries('failed')
        assert len(failed) == len(cases)
        for one in failed:
            assert one.error.startswith('not sent: payload_url: a value in the host of the URL contains a ')
        assert receiver.requests == []

    def test_a_value_that_stays_in_its_part_of_the_url_is_sent(self, receiver: Receiver):
        cases = (
            ('http://{{ data.facility }}/in', '/in'),
            ('http://{{ data.facility }}{{ data.comments }}/in', '/in'),
            ('http://{{ data.facility }}/{{ data.description }}?{{ data.description }}', '/a/b@c'),
            ('{{ "http" }}://{{ data.facility }}/in', '/in'),
            ("{{ 'http://' ~ data.facility ~ '/' ~ data.description }}", '/a/b@c'),
            ("{% set u %}http://{{ data.facility }}/in{% endset %}{{ u }}", '/in'),
            ('{% if data.name %}http://{{ data.facility }}/in{% else %}http://127.0.0.1:9/{% endif %}', '/in'),
        )  # fmt: skip
        for url, _path in cases:
            subscribe(url, Site)
        site(facility=host_of(receiver), description='a/b@c')
        work()
        paths = [request.path for request in receiver.wait_for(len(cases))]
        assert sorted(paths) == sorted(path for _url, path in cases)


class TestLength:
    @pytest.mark.parametrize('field', ['body_template', 'additional_headers'])
    def test_a_template_that_is_too_long_is_refused_by_its_field(self, api_client, field: str):
        webhook = subscribe(NOWHERE, Site)
        url = f'/api/plugins/webhooks/webhooks/{webhook.pk}/'
        # A header's value is short, but its template need not be.
        head, tail = ('X-Name: {{ "', '" }}') if field == 'additional_headers' else ('', '')
        for length, status in ((MAX_TEMPLATE_CHARS, 200), (MAX_TEMPLATE_CHARS + 1, 400)):
            text = head + 'x' * (length - len(head) - len(tail)) + tail
            answer = api_client.patch(url, {field: text}, format='json')
            assert answer.status_code == status
        assert list(answer.data) == [field]

    def test_so_are_many_short_ones_in_headers(self, api_client):
        webhook = subscribe(NOWHERE, Site)
        url = f'/api/plugins/webhooks/webhooks/{webhook.pk}/'
        lines = [f'X-{number}: {{{{ data.name }}}}' for number in range(4000)]
        answer = api_client.patch(url, {'additional_headers': '\n'.join(lines)}, format='json')
        assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
        answer = api_client.patch(url, {'additional_headers': '\n'.join(lines[:100])}, format='json')
        assert answer.status_code == 200


class TestNumber:
    """Each template keeps its limits; together they hold up the process."""

    # Half a second each.
    NAPS = '\n'.join(f'X-{number}: {{{{ 0.5|nap }}}}' for number in range(12))
    TOGETHER = 'the templates of this webhook take more than 2 seconds together'

    @pytest.fixture
    def naps(self, settings) -> None:
        settings.JINJA_FILTERS = {'nap': lambda seconds: time.sleep(seconds) or seconds}

    def test_a_preview_takes_no_longer_for_many_headers(self, api_client, naps):
        site(name='Bern')
        webhook = subscribe(NOWHERE, Site, additional_headers=self.NAPS)
        answer = api_client.get(f'/api/plugins/webhooks/webhooks/{webhook.pk}/preview/')
        assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
        assert self.TOGETHER in str(answer.data)
        Webhook.objects.update(additional_headers='\n'.join(self.NAPS.splitlines()[:2]))
        assert api_client.get(f'/api/plugins/webhooks/webhooks/{webhook.pk}/preview/').status_code == 200

    def test_a_worker_fails_a_request_whose_templates_take_too_long_together(self, receiver: Receiver, naps):
        subscribe(receiver.url('/attack'), Site, additional_headers=self.NAPS)
        subscribe(receiver.url('/two'), Site, additional_headers='\n'.join(self.NAPS.splitlines()[:2]))
        site()
        work()
        (failed,) = deliveries('failed')
        assert failed.error.startswith(f'not sent: additional_headers: {self.TOGETHER}')
        assert [request.path for request in receiver.wait_for(1)] == ['/two']
