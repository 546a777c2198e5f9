"""Runs users' templates, and conditions with regular expressions, in processes where they can harm nothing else.

renderer: asks such a process to render or evaluate, within a time limit. Begin here.
process: starts the processes, and talks to them.
environment, conditions: what runs inside one: the sandbox of Jinja, and conditions. payload/formats.py has the
    variables of templates.
named_keys: which keys of an object a template names.
errors: what both may raise.
placeholders: stand in templates for signatures and credentials.
"""
