from pathlib import Path

import webhooks
from devstack.changed import belonging_to, table

ROOT = Path(webhooks.__file__).parents[1]
ROWS = table((ROOT / 'CONTRIBUTING.md').read_text())


def test_every_row_names_files_that_exist():
    assert len(ROWS) > 20
    missing = [path for row in ROWS.items() for path in (row[0], *row[1]) if not (ROOT / path).exists()]
    assert missing == []


def test_every_file_of_the_product_has_a_row_and_every_room_its_own():
    files = [str(path.relative_to(ROOT)) for path in (ROOT / 'webhooks').rglob('*') if path.is_file()]
    assert [file for file in files if not belonging_to([file], ROWS)] == []
    rooms = {f'webhooks/{path.name}' for path in (ROOT / 'webhooks').iterdir() if any(path.glob('*.py'))}
    without = {room for room in rooms if not any(row == room or row.startswith(f'{room}/') for row in ROWS)}
    assert without == set()


def test_a_change_runs_the_tests_of_the_nearest_row_and_changed_tests():
    rows = {'a': ['tests/a.py'], 'a/b': ['tests/b.py'], 'a/b/c.py': ['tests/c.py']}
    assert belonging_to(['a/x.py', 'a/b/y.py', 'a/b/c.py', 'ab/z.py'], rows) == [
        'tests/a.py',
        'tests/b.py',
        'tests/c.py',
    ]
    assert belonging_to(['tests/unit/test_x.py', 'tests/support/y.py'], rows) == ['tests/unit/test_x.py']
