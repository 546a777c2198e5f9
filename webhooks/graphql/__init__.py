"""GraphQL: queries for webhooks, credentials, events and deliveries."""
