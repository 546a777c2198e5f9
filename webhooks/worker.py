"""The door out: what RQ runs, and the worker that runs it."""

from django_rq.utils import reset_db_connections
from rq import get_current_job
from utilities.rqworker import NetBoxRQWorker

from . import drain as stretch
from . import operations, status
from .timer import Timer, is_migrated
from .warmup import warm_up


def drain() -> str:
    """Send what is due. The result is a sentence for the status page, which is not shown where there was nothing."""
    tally = stretch.run()
    status.publish()
    if not tally.counts:
        get_current_job().result_ttl = 0
    return str(tally)


def redeliver(delivery_uuid: str) -> str:
    """Send one failed delivery again: what requeueing it on the status page runs.

    Raises DeliveryFailed where it fails again, so that RQ lists it as failed.
    """
    operations.requeue(delivery_uuid)
    stretch.run()
    status.publish(except_for=delivery_uuid)
    status.renew(delivery_uuid)
    return operations.outcome(delivery_uuid)


class WebhooksWorker(NetBoxRQWorker):
    """NetBox's worker, with a timer beside it that wakes it for what no wake-up mentions."""

    has_webhooks_timer = True

    def bootstrap(self, *args, **kwargs) -> None:
        super().bootstrap(*args, **kwargs)
        timer = Timer()
        if is_migrated():
            warm_up()
        timer.look()
        # The jobs are forked from this thread: a connection left open here would be shared by all of them.
        reset_db_connections()
        timer.start()
