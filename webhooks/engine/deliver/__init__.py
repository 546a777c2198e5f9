"""Deliveries are sent. A worker owns the lane of a webhook for a while, and alone decides which delivery goes next.

loop       a turn: record answers, choose, begin requests
lanes      the lanes of a worker             queue: its questions to PostgreSQL
lane       the state of one lane             choice: the webhook that is served next
order      the deliveries of an object go one after the other
merge      a later change replaces earlier ones of its object (`latest_only`)      fold
change_sets  the deliveries of a transaction go together      ranks
build      deliveries get their request      threads
record     the outcome is written            verdict  backoff
feed       a webhook without a URL: its deliveries are published
endpoint   an endpoint's health              circuit_breaker  gone
"""
