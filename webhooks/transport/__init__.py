"""A request becomes an outcome: one HTTP exchange, with bounds on what the endpoint can do to us.

In: a Request. Out: an Outcome, whatever the endpoint or the network does. Knows no models.
"""
