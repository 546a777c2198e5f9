"""Publishes messages to brokers, beside HTTP: a driver takes a Message, and returns the broker's confirmation.

Knows no models.

driver: what each driver has to do.
amqp, kafka, mqtt, nats, redis: the drivers.
registry: finds the brokers of the settings, and their drivers.
address: reads the URL of a webhook that names a broker.
background: runs asyncio in a thread, for drivers that need it.
"""
