"""What people ask for. Pages, commands and the REST API call these.

redelivery       sends closed deliveries again
waiting          sends waiting deliveries now
backfill         sends everything in its present state
trial            sends a test event
feed             shows what a webhook without a URL has published
preview          shows a request without sending it
expandable       checks keys to expand
switching        enables, disables, pauses, resumes
secret_rotation  makes a new secret, and shows it once
builtin_import   imports NetBox's own webhooks
failed_jobs      shows failed deliveries as RQ's failed jobs
backlog  status  counts the backlog; lines of the status pages
banners          says why a webhook does not send
removal          removes everything
"""
