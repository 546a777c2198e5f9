from collections import Counter

from redis import RedisError
from rq import get_current_job
from utilities.rqworker import NetBoxRQWorker

from . import conf
from .choices import StatusChoices
from .engine import transactions
from .engine.process import dispatcher, inline
from .engine.process.supervisor import Supervisor
from .exceptions import DeliveryFailed
from .outbox import wakeup
from .services import failed_jobs, redelivery

OFF = 'nothing is sent, because the setting "enabled" (or WEBHOOKS_ENABLED) is not True'

# A worker that ends by itself does all in its own jobs.
ENDING_OPTIONS = ('burst', 'max_jobs', 'max_idle_time')


def drain() -> str:
    """Dispatch recorded events. If no other process sends, send them too.

    Returns a sentence for the status page, '' if nothing was done.
    """
    with transactions.may_break_off(RedisError):  # the token expires
        wakeup.accept()
    if not conf.get().enabled:
        get_current_job().result_ttl = 0
        return OFF
    if dispatcher.here:
        count = dispatcher.here.work()
        result = f'events processed: {count}'
    else:
        counts = _send()
        count, result = counts.total(), told(counts)
    if not count:
        get_current_job().result_ttl = 0
        return result
    return _tell(result)


def redeliver(delivery_uuid: str) -> str:
    """For *Requeue* on RQ's status page. Raises DeliveryFailed if it is gone from the log, or fails again."""
    if not conf.get().enabled:
        raise DeliveryFailed(OFF)
    redelivery.redeliver_failed(delivery_uuid)
    if dispatcher.here:
        dispatcher.here.work()
    else:
        _send(except_for=delivery_uuid)
        failed_jobs.renew(delivery_uuid)
    return _tell(redelivery.outcome(delivery_uuid))


def _send(except_for: str | None = None) -> Counter[str]:
    counts = inline.run()
    with transactions.may_break_off(RedisError):
        failed_jobs.publish(except_for)
    return counts


def told(counts: Counter[str]) -> str:
    parts = [
        (StatusChoices.DELIVERED, 'delivered'),
        (StatusChoices.PENDING, 'to retry'),
        (StatusChoices.FAILED, 'failed'),
        (StatusChoices.SUPERSEDED, 'replaced'),
    ]
    return ', '.join(f'{counts[key]} {words}' for key, words in parts if counts[key]) or 'nothing to send'


def _tell(result: str) -> str:
    """The status page reads the job's meta without unpickling more."""
    job = get_current_job()
    job.meta['result'] = result
    job.save_meta()
    return result


def _look() -> None:
    """Enqueue a job that looks at the tables. Redis may have lost all others, but the mark that there is one."""
    with transactions.may_break_off(RedisError):
        wakeup.accept()
        wakeup.wake()


class WebhooksWorker(NetBoxRQWorker):
    """For our queue it starts the supervisor, unless it ends by itself."""

    serves_webhooks = True

    def work(self, *args, **options) -> bool:
        ours = conf.get().queue
        if ours not in self.queue_names() or not conf.get().enabled:
            return super().work(*args, **options)
        if any(map(options.get, ENDING_OPTIONS)):
            _look()
            return super().work(*args, **options)
        others = [name for name in self.queue_names() if name != ours]
        return Supervisor(self, others, failed_jobs.publish).run(*args, **options)
