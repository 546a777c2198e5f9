"""The jobs that RQ runs for us, and the class of NetBox's workers that serves our queue."""

from collections import Counter

from redis import RedisError
from rq import get_current_job
from utilities.rqworker import NetBoxRQWorker

from . import conf
from .choices import StatusChoices
from .engine import sql
from .engine.process import dispatcher, inline
from .engine.process.supervisor import Supervisor
from .exceptions import DeliveryFailed
from .outbox import wakeup
from .services import failed_jobs, redelivery

# A job's result if the plugin is off.
OFF = 'nothing is sent, because the setting "enabled" (or WEBHOOKS_ENABLED) is not True'

# With such an option a worker ends by itself. So it starts no other processes, and does all work in its jobs.
ENDING_OPTIONS = ('burst', 'max_jobs', 'max_idle_time')


def drain() -> str:
    """Dispatch recorded events: the job that a wake-up enqueues. If no other process sends, send them too.

    Returns a sentence for the status page. If there was nothing to do, RQ forgets the job at once.
    """
    with sql.may_break_off(RedisError):  # the token expires
        wakeup.accept()
    if not conf.get().enabled:
        get_current_job().result_ttl = 0
        return OFF
    if dispatcher.here:
        count = dispatcher.here.work()
        result = f'events processed: {count}'
    else:
        counts = _send()
        count, result = counts.total(), summary(counts)
    if not count:
        get_current_job().result_ttl = 0
        return result
    return _tell(result)


def redeliver(delivery_uuid: str) -> str:
    """Send a failed delivery again: the job behind *Requeue* on RQ's status page. Returns a sentence for that page.

    Raises DeliveryFailed if the plugin is off, the delivery is gone from the log, or fails again.
    """
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
    with sql.may_break_off(RedisError):
        failed_jobs.publish(except_for)
    return counts


def summary(counts: Counter[str]) -> str:
    """Return the counts of deliveries by status as a sentence, such as "3 delivered, 1 to retry"."""
    parts = [
        (StatusChoices.DELIVERED, 'delivered'),
        (StatusChoices.PENDING, 'to retry'),
        (StatusChoices.FAILED, 'failed'),
        (StatusChoices.SUPERSEDED, 'replaced'),
    ]
    return ', '.join(f'{counts[key]} {words}' for key, words in parts if counts[key]) or 'nothing to send'


def _tell(result: str) -> str:
    """Put the result into the job's meta, which the status page can read without unpickling more. Returns it."""
    job = get_current_job()
    job.meta['result'] = result
    job.save_meta()
    return result


def _look() -> None:
    """Enqueue a job that looks at the tables. Redis may have lost all jobs, but kept the token that there is one."""
    with sql.may_break_off(RedisError):
        wakeup.accept()
        wakeup.wake()


class WebhooksWorker(NetBoxRQWorker):
    """NetBox's worker. For our queue it starts the supervisor of our processes, unless it ends by itself."""

    # The check webhooks.W003 looks for it.
    serves_webhooks = True

    def work(self, *args, **options) -> bool:
        """Serve the queues until a signal ends it. `options`: as `rqworker` takes them. Returns a bool, as RQ does."""
        ours = conf.get().queue
        if ours not in self.queue_names() or not conf.get().enabled:
            return super().work(*args, **options)
        if any(map(options.get, ENDING_OPTIONS)):
            _look()
            return super().work(*args, **options)
        others = [name for name in self.queue_names() if name != ours]
        return Supervisor(self, others, failed_jobs.publish).run(*args, **options)
