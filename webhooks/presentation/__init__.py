"""Words, colours and groups that both UIs, the API and the docs share.

In: the models. Out: texts. This package knows no pages.
"""
