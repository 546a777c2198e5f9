"""NetBox's daily job for us. It is scheduled whenever an rqworker starts."""

from core.choices import JobIntervalChoices
from netbox.jobs import JobRunner, system_job

from . import conf
from .engine import retention, retention_size


@system_job(interval=JobIntervalChoices.INTERVAL_DAILY)
class WebhooksRetentionJob(JobRunner):
    class Meta:
        name = 'Webhooks: prune the delivery log'

    def run(self, *args, **kwargs) -> None:
        pruned = retention.prune(retention.cutoff()) + retention_size.prune(conf.get().retention_size)
        self.logger.info(f'{pruned} events pruned')
