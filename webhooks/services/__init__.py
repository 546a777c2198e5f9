"""What people ask for. Pages, commands and the REST API call these.

redelivery       sends closed deliveries again: some, or a range of time
waiting          sends waiting deliveries now: all, or each object's latest
backfill         sends everything in its present state
trial            sends a test event at once
feed             shows what a webhook without a URL has published
preview          shows a request without sending it
expandable       checks which keys a webhook may expand
switching        enables, disables, pauses and resumes webhooks
secret_rotation  makes a new secret, and shows it once
builtin_import   imports NetBox's own webhooks
failed_jobs      shows failed deliveries as RQ's failed jobs
backlog  status  counts the backlog; the lines of the status pages
banners          says why a webhook does not send, and the way out
removal          removes everything
"""
