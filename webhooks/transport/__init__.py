"""Sends a Request over HTTP or to a broker, and returns its Outcome. Knows no models.

client: sends over HTTP, and reads the answer, as much as constants.py allows. Begin here.
publishing: sends to a broker, by its driver (brokers/).
exchange: Request, Outcome and Answer.
connections: opens connections, and keeps them for the next request.
blocked_networks: refuses addresses.
deadline: ends requests whose time is over.
"""
