"""Keeps webhooks and credentials in a document: plans its changes, applies them, and exports a document.

document: reads a document, YAML or JSON, and knows the line of each field.
apply: plans and applies it. Begin here.
export: writes a document of the webhooks and credentials that exist.
definitions: files of data sources. NetBox applies them when it syncs the source, or when a user presses a button.
schema: the JSON Schema of a document.
"""
