"""JSON laid out for people, and texts that come back as they are."""

import pytest

from webhooks.presentation.json_text import readable


@pytest.mark.parametrize(
    ('body', 'shown'),
    [
        ('{"a": [1]}', '{\n    "a": [\n        1\n    ]\n}'),
        ('no JSON', 'no JSON'),
        ('{"half": "\\ud800"}', '{\n    "half": "\ufffd"\n}'),
        ('[' * 100_000, '[' * 100_000),
    ],
)
def test_json_has_a_key_a_line(body: str, shown: str):
    assert readable(body) == shown


def test_json_that_would_grow_a_thousandfold_is_not_laid_out():
    depth = 900
    body = '[' * depth + ','.join('1' * 1000) + ']' * depth
    assert readable(body) == body
