"""What both UIs, the API and the docs show: the fields of a webhook, its states, and what can be done with it.

In: the models. Out: names, words, colours and groups. Nothing here knows how a page is built.
"""
