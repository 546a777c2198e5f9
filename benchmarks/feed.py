"""Readers' speed, alone and beside a sending worker, and a change's delay."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import requests
from dcim.models import Site
from requests.adapters import HTTPAdapter
from tenancy.models import Tenant
from urllib3 import Retry
from users.models import Token

from benchmarks.report import Row, percentile
from benchmarks.sides import OURS, Bed
from devstack.ports import LOOPBACK, free_port
from devstack.process import wait_until
from webhooks.models import Health, Webhook

READERS = 50
TIMEOUT = 300
# NetBox's own gunicorn.py has as many threads.
GUNICORN = '--workers 2 --threads 3 --log-level error devstack.wsgi:application'


class Reader:
    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = requests.Session()
        # The server closes connections after 2 idle seconds, maybe just before a request.
        self._session.mount('http://', HTTPAdapter(max_retries=Retry(3)))
        self._session.headers['Authorization'] = token

    def read(self, **asked: object) -> dict:
        """Ask again while too many readers wait."""
        while (answer := self._session.get(self._url, params=asked, timeout=TIMEOUT)).status_code == 503:
            time.sleep(0.1)
        answer.raise_for_status()
        return answer.json()

    def read_all(self) -> int:
        page = self.read(limit=500)
        count = len(page['items'])
        while page['unread']:
            page = self.read(limit=500, after=page['cursor'])
            count += len(page['items'])
        return count


def measure(bed: Bed) -> Iterator[Row]:
    count, arrivals = (300, 10) if bed.quick else (5000, 40)
    with _server(bed) as make, bed.subscribed(OURS, Tenant), bed.subscribed(OURS, Site):
        feed = Webhook.objects.get(object_types__model='site')
        feed.payload_url = ''
        feed.save()
        with bed.worker():
            bed.save(bed.new_sites(count))
            if not wait_until(lambda: Health.objects.get(webhook=feed).position == count, timeout=TIMEOUT):
                raise TimeoutError('the changes were not published')
            readers = [make(feed) for _ in range(READERS)]
            for reader in readers:
                reader.read(limit=1)  # NetBox loads the rest of itself
            alone = _sending(bed, count)
            one = _rate(readers[:1])
            yield Row('items to one reader', 'a second', [one])
            yield Row('items to one reader, of what one rqworker sends', '', [one / alone])
            with ThreadPoolExecutor(1) as pool:
                sending: Future[float] = pool.submit(_sending, bed, count)
                many = _rate(readers)
            yield Row(f'items to {READERS} readers together, beside a worker that sends', 'a second', [many])
            yield Row('the same, of those to one reader', '', [many / one])
            yield Row('sent beside them, of alone', '', [sending.result() / alone])
            at_reader, at_endpoint = _delays(bed, readers[0], arrivals), _delays_of_requests(bed, arrivals)
    for name, share in (('p50', 0.5), ('p95', 0.95)):
        delay = percentile(at_reader, share)
        yield Row(f'answer of the save to arrival at a waiting reader, {name}', 'ms', [delay])
        yield Row('the same, of that at an endpoint', '', [delay / percentile(at_endpoint, share)])


@contextmanager
def _server(bed: Bed):
    """Yield a function that makes a reader."""
    token = Token.objects.create(user=bed.user)
    port = free_port()
    command = [sys.executable, '-m', 'gunicorn', '--bind', f'{LOOPBACK}:{port}', *GUNICORN.split()]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def make(feed: Webhook) -> Reader:
        url = f'http://{LOOPBACK}:{port}/api/plugins/webhooks/webhooks/{feed.pk}/feed/'
        return Reader(url, f'{token.get_auth_header_prefix()}{token.token}')

    def answers() -> bool:
        try:
            return requests.get(f'http://{LOOPBACK}:{port}/login/', timeout=60).ok
        except requests.RequestException:
            return False

    try:
        if not wait_until(answers, timeout=120):
            raise TimeoutError('NetBox did not start')
        yield make
    finally:
        child.terminate()
        child.wait()


def _rate(readers: Sequence[Reader]) -> float:
    """Return items a second, of all readers together."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(readers)) as pool:
        count = sum(pool.map(Reader.read_all, readers))
    return count / (time.perf_counter() - began)


def _sending(bed: Bed, count: int) -> float:
    """Return deliveries a second."""
    bed.receiver.clear()
    bed.save(bed.new_tenants(count))
    got = bed.receiver.wait_for(count, timeout=TIMEOUT)
    return count / (got[count - 1].arrived - got[0].arrived)


def _delays_of_requests(bed: Bed, count: int) -> list[float]:
    bed.receiver.clear()
    delays = []
    for number in range(count):
        time.sleep(0.5)  # as before
        bed.save(bed.new_tenants(1))
        answered = time.time()
        delays.append((bed.receiver.wait_for(number + 1, timeout=TIMEOUT)[number].arrived - answered) * 1000)
    return delays


def _delays(bed: Bed, reader: Reader, count: int) -> list[float]:
    """Return milliseconds."""
    cursor = reader.read(limit=1)['cursor']
    while (page := reader.read(after=cursor, limit=1000))['items']:
        cursor = page['cursor']
    delays = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(count):
            waiting = pool.submit(lambda after=cursor: (reader.read(after=after, wait=60)['cursor'], time.time()))
            time.sleep(0.5)  # it waits by now
            bed.save(bed.new_sites(1))
            answered = time.time()
            cursor, arrived = waiting.result()
            delays.append((arrived - answered) * 1000)
    return delays
