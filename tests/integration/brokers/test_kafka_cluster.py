"""The faults of a Kafka cluster of three brokers: what is tried again, what is refused, what the client remembers."""

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError
from support.kafka_cluster import BROKERS, INIT_PRODUCER_ID, TOPIC, Cluster

from devstack.process import wait_until
from webhooks.brokers.driver import Away, Message, Refused
from webhooks.brokers.kafka import Kafka

# Seconds.
PATIENCE, SHORT = 60.0, 2.0

Publish = Callable[..., dict[str, object]]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def publish(cluster: Cluster) -> Iterator[Publish]:
    kafka = Kafka({'bootstrap.servers': cluster.addresses})

    def call(topic: str = TOPIC, timeout: float = PATIENCE) -> dict[str, object]:
        return dict(kafka.publish(Message(address=topic, key='dcim.site:1', id='1', headers={}, body=b'{}'), timeout))

    call()
    yield call
    kafka.close()


@pytest.mark.parametrize(
    'code',
    [
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_PRODUCER_ID,
    ],
)
def test_a_passing_fault_is_overcome_within_the_timeout(cluster, publish, code):
    cluster.answer(code)
    assert publish()['topic'] == TOPIC


@pytest.mark.parametrize(
    'code', [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_RECORD]
)
def test_a_message_that_the_cluster_does_not_want_is_refused_in_its_words(cluster, publish, code):
    cluster.answer(code)
    with pytest.raises(Refused, match=KafkaError(code).str().removeprefix('Broker: ')):
        publish()
    assert publish()['topic'] == TOPIC


def test_too_few_replicas_for_long_are_a_cluster_that_is_away(cluster, publish):
    with cluster.answering(KafkaError.NOT_ENOUGH_REPLICAS), pytest.raises(Away):
        publish(timeout=SHORT)
    assert publish()['topic'] == TOPIC


def test_another_broker_takes_over_when_the_leader_dies(cluster, publish):
    cluster.stop(1)
    with pytest.raises(Away):
        publish(timeout=SHORT)
    cluster.lead_by(2)
    assert publish()['topic'] == TOPIC


def test_a_slow_cluster_confirms_and_a_too_slow_one_is_away(cluster, publish):
    with cluster.answering_after(milliseconds=500):
        assert publish()['topic'] == TOPIC
    with cluster.answering_after(milliseconds=20_000), pytest.raises(Away):
        publish(timeout=SHORT)


def test_a_login_without_the_right_to_produce_at_all_is_refused_in_the_clusters_words(cluster):
    kafka = Kafka({'bootstrap.servers': cluster.addresses})
    cluster.answer(*[KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 5, to=INIT_PRODUCER_ID)
    with pytest.raises(Refused, match='Cluster authorization failed'):
        kafka.publish(Message(address=TOPIC, key='', id='1', headers={}, body=b''), PATIENCE)
    kafka.close()


@pytest.mark.parametrize('code', [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_topic_that_was_unknown_or_forbidden_is_used_as_soon_as_it_may_be(cluster, publish, code):
    with cluster.saying('other', code):
        for _ in range(2):
            with pytest.raises(Refused):
                publish('other')
    assert publish('other')['topic'] == 'other'


def test_a_late_message_does_not_name_trouble_that_has_passed(cluster, publish):
    for broker in BROKERS:
        cluster.stop(broker)
    with pytest.raises(Away, match='refused'):
        publish(timeout=SHORT)
    for broker in BROKERS:
        cluster.start(broker)

    def is_forgotten() -> bool:
        publish()
        with cluster.answering_after(milliseconds=20_000), pytest.raises(Away) as caught:
            publish(timeout=SHORT)
        return 'refused' not in str(caught.value)

    # The client may tell of one broker's trouble after another one has answered.
    assert wait_until(is_forgotten, PATIENCE)
