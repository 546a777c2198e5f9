"""Deliveries are sent. A worker owns the lane of a webhook for a while, and alone decides what of it goes next.

loop       a turn: what was answered is recorded, what is due is chosen, requests begin
queue      what PostgreSQL is asked: which lanes are free, and what is due in them
owned      the lanes that a worker owns
lane       what a worker knows of one, and what goes next      due  batch  share
latest     of an object's waiting changes only the last goes, for webhooks that ask for it      fold
build      deliveries get their requests            sent
threads    requests are made
record     what came of them is recorded            verdict  backoff  ledger  circuit_breaker  gone
"""
