"""Keeps webhooks and credentials in a document: plans what it would change, applies it, and writes it.

document: reads a document, YAML or JSON, and knows the line of each field.
apply: plans and applies it. Begin here.
export: writes the document of what is there.
definitions: files of data sources. NetBox applies them when it syncs the source, or when a user presses a button.
schema: the JSON Schema of a document.
"""
