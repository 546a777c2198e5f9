"""The daily job of NetBox that prunes the log. NetBox schedules it whenever an rqworker starts."""

import time

from core.choices import JobIntervalChoices
from django.db import connection
from netbox.jobs import JobRunner, system_job

from .constants import JOB_SECONDS
from .engine import notifications
from .engine.tidy import retention
from .models import stored_urls


@system_job(interval=JobIntervalChoices.INTERVAL_DAILY)
class WebhooksRetentionJob(JobRunner):
    """Deletes old events and deliveries, seals URLs that a script or 1.0.0 stored in clear, and notifies of
    certificates and credentials that end soon.
    """

    class Meta:
        name = 'Webhooks: prune the delivery log'

    def run(self, *args, **kwargs) -> None:
        """Delete for JOB_SECONDS, in slices. Then a new job does the rest, so that other jobs get their turn.

        The job that finds no more to delete notifies of them.
        """
        stored_urls.seal(connection)
        end, pruned = time.monotonic() + JOB_SECONDS, 0
        for count in retention.slices():
            pruned += count
            if pruned and time.monotonic() > end:
                self.enqueue()
                break
        else:
            notifications.notify_endings()
        self.logger.info(f'Events deleted from the delivery log: {pruned}')
