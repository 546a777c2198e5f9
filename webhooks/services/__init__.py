"""What people ask for: redeliver, backfill, test, preview, import, rotate a secret, remove everything, see how it goes.

In: a call of a page, a command or the REST API. Out: what was done, or why not.

redelivery       closed deliveries are redelivered: chosen ones, or those of a range of time
waiting          what waits goes out now: all of it, or of each object only the latest
backfill         everything is sent as it is now: started, paused, resumed, canceled
trial            a test event is sent at once
feed             what a webhook without a URL has published is read
preview          the request that would be sent is shown
expandable       which keys a webhook may have expanded
switching        a webhook is enabled or disabled, paused or resumed
secret_rotation  a new secret is put in use, and shown once
builtin_import   NetBox's own webhooks become ours
failed_jobs      failed deliveries are RQ's failed jobs
backlog  status  how sending goes, in figures and line by line
banners          what keeps a webhook from sending, why, and the way out
removal          everything goes
"""
