"""Writes the events of a change in the transaction of the change, and wakes a worker after the commit.

The signal handlers that call it are in ../signals.py.

scope: does any webhook want the model, and which details of it?
prechange: keeps the states before changes. snapshots reads rows as they are.
unchanged: finds saves that change nothing. recording leaves them out if no webhook wants them, and
    engine/dispatch/matching does so for each webhook.
recording: writes the events.
deletions: renders what a deletion removes. cascade finds it, and first_receiver runs before NetBox's own receivers.
side_effects, modules: changes that NetBox makes without a signal.
merges: notes the branch that is merged. trace reads the request's trace context.
restating: records objects as they are now, for backfills, walks of lists and *Send now*.
wakeup: wakes a worker after the commit, by a job in the queue of redis_queue.
signal_senders: where signals have to go.
"""
