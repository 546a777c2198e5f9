"""Keeps webhooks and credentials in a document: plans what it would change, applies it, and writes it.

document: reads a document, YAML or JSON, and knows the line of each field.
apply: plans and applies it. Begin here.
export: writes the document of what is there.
schema: the JSON Schema of a document.
"""
