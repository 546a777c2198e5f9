"""Actions behind pages, commands and the REST API.

actions: the table of actions. Each has a permission, the places that offer it, and mostly the service that does it.
redelivery: sends closed deliveries again, and counts them before.
confirmation: asks before many deliveries are sent again.
causes: groups failed deliveries by webhook and error.
send_waiting: sends waiting deliveries now.
backfill: sends all objects in their present state.
lists: compares lists with the objects that receivers have.
send_now: sends chosen objects at once.
trial: sends a test event.
feed: shows the published changes of a feed.
preview: shows a request without sending it.
preview_sources: finds events and objects for a preview.
preview_room: lets only a few people preview at once.
matching: says why a webhook takes an event or not. conditions: which parts of its conditions are met.
sent_bodies: shows the bodies that a delivery has sent.
keys: checks the keys of the payload that a webhook names.
switching: pauses and resumes webhooks, and says whether they are on.
secret_rotation: makes a new secret, and shows it once.
builtin_import: imports NetBox's own webhooks.
failed_jobs: shows failures on RQ's status page.
backlog: counts the backlog.
database_health: measures our tables, and finds the reason for dead rows in them.
not_sending: names the webhooks that are paused or suspended.
why_not_sent: says why a webhook or a delivery is not sent, and the way out.
"""
