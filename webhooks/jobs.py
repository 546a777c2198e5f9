"""NetBox's daily job for us. It is scheduled whenever an rqworker starts."""

from core.choices import JobIntervalChoices
from netbox.jobs import JobRunner, system_job

from .engine import retention_size


@system_job(interval=JobIntervalChoices.INTERVAL_DAILY)
class WebhooksRetentionJob(JobRunner):
    class Meta:
        name = 'Webhooks: prune the delivery log'

    def run(self, *args, **kwargs) -> None:
        self.logger.info(f'{retention_size.prune_all()} events pruned')
