"""The door out: what RQ runs, and the worker that runs it."""

from rq import get_current_job
from utilities.rqworker import NetBoxRQWorker

from . import conf
from .engine.process import inline
from .engine.process.dispatcher import Dispatching
from .engine.process.supervisor import Supervisor
from .exceptions import DeliveryFailed
from .outbox import wakeup
from .outbox.scope import is_migrated
from .services import failed_jobs, redelivery

# What a job says that was queued before webhooks were switched off, or by somebody who redelivers.
OFF = 'nothing is sent while WEBHOOKS_ENABLED is off'

# Options of a worker that is to end by itself: it does all in its own jobs.
ENDS = ('burst', 'max_jobs', 'max_idle_time')


def drain() -> str:
    """Dispatch what is recorded; where no other process sends, send it as well.

    The result is a sentence for the status page, which is not shown where there was nothing.
    """
    wakeup.accept()
    if not conf.get().enabled:
        get_current_job().result_ttl = 0
        return OFF
    if here := Dispatching.here():
        count = here.work()
        result = f'{count} dispatched'
    else:
        tally = inline.run()
        failed_jobs.publish()
        count, result = tally.counts.total(), str(tally)
    if not count:
        get_current_job().result_ttl = 0
        return result
    return _tell(result)


def redeliver(delivery_uuid: str) -> str:
    """Redeliver a failed delivery: what *Requeue* runs on RQ's status page. It is listed anew if it fails again.

    Raises DeliveryFailed where it is no longer in the log.
    """
    if not conf.get().enabled:
        raise DeliveryFailed(OFF)
    redelivery.redeliver_failed(delivery_uuid)
    drain()
    return _tell(redelivery.outcome(delivery_uuid))


def _tell(result: str) -> str:
    """Leave the result where the status page has it without unpickling more than NetBox's own pages of jobs do."""
    job = get_current_job()
    job.meta['result'] = result
    job.save_meta()
    return result


class WebhooksWorker(NetBoxRQWorker):
    """NetBox's worker. If it serves our queue, that has processes of its own (engine/process/supervisor.py).

    One that is to end by itself does our jobs as any other.
    """

    serves_webhooks = True

    def work(self, *args, **options) -> bool:
        ours = conf.get().queue
        if ours not in self.queue_names() or not conf.get().enabled or any(map(options.get, ENDS)):
            return super().work(*args, **options)
        if is_migrated():
            failed_jobs.forget_wakeups()
        others = [name for name in self.queue_names() if name != ours]
        return Supervisor(self, others, failed_jobs.publish).run(*args, **options)
