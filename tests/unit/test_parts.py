"""`scripts/test` runs every test once, and reports every failure."""

import sys
from pathlib import Path

import pytest

from devstack import parts, test
from devstack.folders import CHECKOUT
from devstack.parts import Part, parts_of, run_parts, summarize

PYTEST = (sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider')
# Ends once the given number of parts have begun.
PROGRAM = """
import pathlib, sys, time
part, others = pathlib.Path(sys.argv[2]), int(sys.argv[1])
journal = part.parent / 'journal'
with journal.open('a', buffering=1) as file:
    print('begin', part.name, file=file)
    while journal.read_text().count('begin') < others:
        time.sleep(0.01)
    print('end', part.name, file=file)
print(part.name, 'says so')
"""


@pytest.fixture(scope='module')
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    tests = {
        'passing': 'def test_one(): pass\ndef test_two(): pass',
        'failing': 'def test_one(): pass\ndef test_two(): assert not "as it should be"',
        'broken': 'import nothing_of_this_name',
        'killed': 'import os, signal\ndef test_one(): os.kill(os.getpid(), signal.SIGKILL)',
    }
    folder = tmp_path_factory.mktemp('parts')
    for name, text in tests.items():
        (folder / name).mkdir()
        (folder / name / f'test_{name}.py').write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTEST_DISABLE_PLUGIN_AUTOLOAD', '1')  # loading them takes most of the time
        found = run_parts({name: [str(folder / name)] for name in tests}, folder / 'logs', command=PYTEST)
    by_name = {part.name: part for part in found}
    return {name: by_name[name] for name in tests}


def test_each_file_of_tests_is_in_one_part():
    paths = [path for part in parts_of(['tests']).values() for path in part]
    files = [file.relative_to(CHECKOUT) for file in (CHECKOUT / 'tests').rglob('test_*.py')]
    counts = {str(file): sum(file.is_relative_to(path) for path in paths) for file in files}
    assert {file: count for file, count in counts.items() if count != 1} == {}


def test_the_part_that_takes_longest_starts_first():
    first = dict.fromkeys(
        Path(paths[0]).parent if paths[0].endswith('.py') else Path(paths[0]) for paths in parts_of(['tests']).values()
    )
    assert [*map(str, first)][: len(parts.SHARES)] == [*parts.SHARES]


def test_small_folders_share_a_part_and_one_alone_needs_none():
    api, ui, other = (f'tests/integration/{name}' for name in ('api', 'ui', 'brokers'))
    assert parts_of([other, ui, api]) == {other: [other], 'tests/integration/{api,ui}': [api, ui]}
    assert parts_of([ui]) == {ui: [ui]}


def test_a_folder_of_folders_is_split_and_one_of_tests_is_not():
    assert set(parts_of(['tests/integration'])) == {part for part in parts_of(['tests']) if 'integration' in part}
    assert parts_of(['tests/unit']) == {'tests/unit': ['tests/unit']}


@pytest.mark.parametrize(('name', 'code'), [('failing', 1), ('broken', 2), ('killed', -9)])
def test_a_part_that_fails_makes_the_exit_code(ended: dict[str, Part], name: str, code: int):
    assert summarize([ended['passing'], ended[name], ended['passing']]) == code
    assert summarize([ended['passing']]) == 0


def test_the_output_ends_with_a_line_for_each_part_and_their_sum(
    ended: dict[str, Part], capsys: pytest.CaptureFixture[str]
):
    summarize([*ended.values()])
    *lines, total = capsys.readouterr().out.splitlines()
    told = [line.rpartition('/')[2].partition(' in ')[0] for line in lines]
    assert told == ['passing: 2 passed', 'failing: 1 failed, 1 passed', 'broken: 1 error', 'killed: exit code -9']
    assert total == 'Total: 3 passed, 3 failed, 0 skipped'


def test_parts_run_at_once_and_no_more_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(parts, 'AT_ONCE', 2)
    named = {name: [str(tmp_path / name)] for name in 'abcd'}
    # Each of the first two waits for its neighbour.
    assert [part.code for part in run_parts(named, tmp_path, command=(sys.executable, '-c', PROGRAM, '2'))] == [0] * 4
    assert capsys.readouterr().out.count('says so') == 4
    steps = (tmp_path / 'journal').read_text().split()[::2]
    assert max(steps[:end].count('begin') - steps[:end].count('end') for end in range(9)) == 2


@pytest.mark.parametrize('folders', [[], ['tests/chaos']])
def test_all_seeds_run_in_the_same_parts(folders: list[str]):
    assert test._parts([*folders, '--long']) == test._parts(folders) != {}
