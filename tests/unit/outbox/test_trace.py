import pytest

from webhooks.outbox.trace import context_of

TRACE, PARENT = '4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'
VALID = f'00-{TRACE}-{PARENT}-01'


def of(parent: str, state: str = '') -> dict[str, str] | None:
    return context_of({'HTTP_TRACEPARENT': parent, 'HTTP_TRACESTATE': state})


@pytest.mark.parametrize('parent', [VALID, f' {VALID} ', f'cc-{TRACE}-{PARENT}-01', f'cc-{TRACE}-{PARENT}-01-later'])
def test_a_valid_parent_is_taken_unchanged(parent):
    assert of(parent) == {'traceparent': parent.strip()}


@pytest.mark.parametrize(
    'parent',
    [
        '', '-', 'x' * 55, f'{VALID}-more', f'{VALID}\r\nX: y', VALID.upper(), f'ff-{TRACE}-{PARENT}-01',
        f'00-{"0" * 32}-{PARENT}-01', f'00-{TRACE}-{"0" * 16}-01', f'00-{TRACE}-{PARENT}',
        f'00-{TRACE[1:]}-{PARENT}-01', f'cc-{TRACE}-{PARENT}-01later', f'cc-{TRACE}-{PARENT}-01-' + 'x' * 300,
        f'٠٠-{TRACE}-{PARENT}-01',
    ],
)  # fmt: skip
def test_any_other_parent_is_none(parent):
    assert of(parent, 'a=1') is None


@pytest.mark.parametrize(
    ('state', 'taken'),
    [
        ('a=1', 'a=1'),
        ('a=1, b=2 ,,\tc=3', 'a=1,b=2,c=3'),
        ('tenant@system=a b', 'tenant@system=a b'),
        (','.join(f'k{number}=1' for number in range(32)), ','.join(f'k{number}=1' for number in range(32))),
        ('', ''),
        (','.join(f'k{number}=1' for number in range(33)), ''),
        ('a=1,a=2', ''),
        ('A=1', ''),
        ('a', ''),
        ('a=', ''),
        ('a=b=c', ''),
        ('a=ü', ''),
        ('a=1\r\nX: y', ''),
        ('a=' + 'x' * 257, ''),
        ('a=' + 'x' * 250 + ',b=' + 'x' * 250 + ',c=' + 'x' * 20, ''),
    ],
)
def test_a_state_is_taken_only_if_all_of_it_is_valid(state, taken):
    assert of(VALID, state) == {'traceparent': VALID} | ({'tracestate': taken} if taken else {})
