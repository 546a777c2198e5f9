"""Workflows and git's hooks only call existing scripts."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
FORMS = [path for path in sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml')) if path.name != 'config.yml']
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def jobs() -> dict[str, Any]:
    return {name: job for path in WORKFLOWS for name, job in yaml.safe_load(path.read_text())['jobs'].items()}


def commands() -> list[str]:
    return [step['run'] for job in jobs().values() for step in job.get('steps', []) if 'run' in step]


def hooks() -> list[dict[str, Any]]:
    repositories = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    return [hook | {'repo': one['repo']} for one in repositories for hook in one['hooks']]


def is_executable(path: Path) -> bool:
    return path.is_file() and bool(path.stat().st_mode & 0o100)


def test_workflows_run_the_scripts_that_are_there_and_nothing_else():
    scripts = {command for command in commands() if not command.startswith('docker run ')}
    assert scripts == {f'scripts/{name}' for name in ('ahead', 'lint', 'release', 'site', 'test', 'test_oldest')}
    assert [command for command in scripts if not is_executable(ROOT / command)] == []


def test_each_action_is_named_by_its_commit():
    used = [line for path in WORKFLOWS for line in re.findall(r'uses: (?!\./)(.+)', path.read_text())]
    assert used
    assert [line for line in used if not re.fullmatch(r'[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+', line)] == []


def test_a_netbox_that_is_not_there_yet_stops_nothing():
    assert [name for name, job in jobs().items() if job.get('continue-on-error')] == ['ahead']


@pytest.mark.parametrize('path', FORMS, ids=lambda path: path.name)
def test_forms_of_issues_ask_for_something(path: Path):
    form = yaml.safe_load(path.read_text())
    assert form['name']
    assert form['description']
    asked = [part for part in form['body'] if part['type'] != 'markdown']
    assert len({part['id'] for part in asked}) == len(asked) > 0
    assert [part['id'] for part in asked if not part['attributes'].get('label')] == []


def test_promtool_is_there_before_the_tests_that_fail_without_it_in_a_workflow():
    steps = [step.get('run', '') for step in jobs()['checks']['steps']]
    (number,) = [number for number, command in enumerate(steps) if command.startswith('docker run ')]
    assert 'promtool' in steps[number]
    assert number < steps.index('scripts/test')


def test_everything_is_tested_on_each_python_that_the_package_names():
    named = re.findall(r'Programming Language :: Python :: (3\.\d+)', '\n'.join(PROJECT['classifiers']))
    matrix = jobs()['checks']['strategy']['matrix']['python']
    assert matrix == named
    assert PROJECT['requires-python'] == f'>={matrix[0]}'


def test_nothing_is_published_before_all_checks_have_passed():
    release = yaml.safe_load((ROOT / '.github/workflows/release.yml').read_text())['jobs']
    called = release['check']['uses']
    assert set(release['publish']['needs']) == {'check', 'build'}
    # YAML 1.1 reads the word `on` as true.
    assert 'workflow_call' in yaml.safe_load((ROOT / called).read_text())[True]


@pytest.mark.parametrize('hook', hooks(), ids=lambda hook: hook['id'])
def test_hooks_are_programs_of_the_virtual_environment(hook: dict[str, Any]):
    script, program, *_ = hook['entry'].split()
    assert (hook['repo'], hook['language'], script) == ('local', 'system', 'scripts/tool')
    assert is_executable(ROOT / script)
    requirement = program if program == 'ruff' else 'pre-commit-hooks'
    assert f'\n{requirement}==' in (ROOT / 'requirements-dev.txt').read_text()


def test_every_requirement_is_pinned_and_has_its_reason_in_contributing():
    lines = [line for line in (ROOT / 'requirements-dev.txt').read_text().splitlines() if not line.startswith('#')]
    names = [re.fullmatch(r'([a-z-]+)(?:\[\w+\])?==[\w.]+', line) for line in lines]
    assert None not in names
    reasons = (ROOT / 'CONTRIBUTING.md').read_text().partition('`requirements-dev.txt` |')[2]
    assert [name[1] for name in names if name and not re.search(rf'\b{name[1]}\b', reasons)] == []
