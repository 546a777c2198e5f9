"""A cluster of three brokers with the faults of real ones: librdkafka's own mock, in this process, over TCP.

Python's client does not offer it, so its C functions are called.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

BROKERS = (1, 2, 3)
TOPIC = 'netbox'
# Kafka's numbers of requests.
PRODUCE, INIT_PRODUCER_ID = 0, 22
PRODUCER = 0

_HANDLE = ctypes.c_void_p
_SIGNATURES = {
    'conf_new': (_HANDLE, []),
    'new': (_HANDLE, [ctypes.c_int, _HANDLE, ctypes.c_char_p, ctypes.c_size_t]),
    'destroy': (None, [_HANDLE]),
    'mock_cluster_new': (_HANDLE, [_HANDLE, ctypes.c_int]),
    'mock_cluster_destroy': (None, [_HANDLE]),
    'mock_cluster_bootstraps': (ctypes.c_char_p, [_HANDLE]),
    'mock_topic_create': (ctypes.c_int, [_HANDLE, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    'mock_topic_set_error': (None, [_HANDLE, ctypes.c_char_p, ctypes.c_int]),
    'mock_partition_set_leader': (ctypes.c_int, [_HANDLE, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]),
    'mock_broker_set_down': (ctypes.c_int, [_HANDLE, ctypes.c_int32]),
    'mock_broker_set_up': (ctypes.c_int, [_HANDLE, ctypes.c_int32]),
    'mock_broker_set_rtt': (ctypes.c_int, [_HANDLE, ctypes.c_int32, ctypes.c_int]),
    'mock_push_request_errors_array': (
        None,
        [_HANDLE, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
    ),
    'mock_clear_request_errors': (None, [_HANDLE, ctypes.c_int16]),
}


class Cluster:
    """The cluster has one topic of one partition, whose leader is the first broker."""

    def __init__(self) -> None:
        folder = Path(confluent_kafka.__file__).parent.parent / 'confluent_kafka.libs'
        library = ctypes.CDLL(str(next(folder.glob('librdkafka*'))))
        self._calls = {}
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, f'rd_kafka_{name}')
            function.restype, function.argtypes = result, arguments
            self._calls[name] = function
        self._client = self._calls['new'](PRODUCER, self._calls['conf_new'](), None, 0)
        self._cluster = self._calls['mock_cluster_new'](self._client, len(BROKERS))
        self._calls['mock_topic_create'](self._cluster, TOPIC.encode(), 1, len(BROKERS))
        self.lead_by(BROKERS[0])

    @property
    def addresses(self) -> str:
        """What `bootstrap.servers` takes."""
        return self._calls['mock_cluster_bootstraps'](self._cluster).decode()

    def answer(self, *codes: int, to: int = PRODUCE) -> None:
        """Answer the next requests with these errors."""
        errors = (ctypes.c_int * len(codes))(*codes)
        self._calls['mock_push_request_errors_array'](self._cluster, to, len(codes), errors)

    @contextmanager
    def answering(self, code: int) -> Iterator[None]:
        """Answer all messages with this error meanwhile."""
        self.answer(*[code] * 1000)
        yield
        self._calls['mock_clear_request_errors'](self._cluster, PRODUCE)

    @contextmanager
    def saying(self, topic: str, code: int) -> Iterator[None]:
        """Say this error about the topic meanwhile."""
        self._calls['mock_topic_set_error'](self._cluster, topic.encode(), code)
        yield
        self._calls['mock_topic_set_error'](self._cluster, topic.encode(), 0)

    def lead_by(self, broker: int) -> None:
        self._calls['mock_partition_set_leader'](self._cluster, TOPIC.encode(), 0, broker)

    def stop(self, broker: int) -> None:
        self._calls['mock_broker_set_down'](self._cluster, broker)

    def start(self, broker: int) -> None:
        self._calls['mock_broker_set_up'](self._cluster, broker)

    @contextmanager
    def answering_after(self, milliseconds: int) -> Iterator[None]:
        """Let each answer take so long meanwhile."""
        for broker in BROKERS:
            self._calls['mock_broker_set_rtt'](self._cluster, broker, milliseconds)
        yield
        for broker in BROKERS:
            self._calls['mock_broker_set_rtt'](self._cluster, broker, 0)

    def close(self) -> None:
        self._calls['mock_cluster_destroy'](self._cluster)
        self._calls['destroy'](self._client)
