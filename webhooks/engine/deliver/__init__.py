"""Sends deliveries. A worker owns the lane of a webhook for a while, and alone decides which delivery goes next.

loop: does a turn: records answers, chooses, begins requests.
lanes: takes and leaves lanes: which webhooks a worker sends to. Memory follows a turn after its commit.
turn: finds the deliveries in these lanes that go next, step by step. queue reads due deliveries.
lane: holds a lane's state: waiting deliveries, how many requests may go, and how long the lane is kept. choice picks
    the webhook that is served next.
order: sends an object's deliveries in turn.
superseding: lets a later change replace earlier ones (`latest_only`, `quiet`). fold says which.
quiet: lets changes wait until their object is quiet. Then superseding makes them one.
change_sets: sends a transaction's deliveries together, in an order of models.
build: builds requests and sends them, in threads.
record: writes outcomes. verdict and backoff decide whether and when a delivery is tried again.
feed: publishes deliveries of webhooks without a URL.
endpoint: keeps an endpoint's health, and disables a webhook after 410. circuit_breaker suspends it, and
    lets it go on after a probe.
"""
