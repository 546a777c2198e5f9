"""contrib/: the dashboard and the alerts ask for metrics that exist, and the docs say what to do."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from dcim.models import Site
from support.builders import NOWHERE, subscribe

from devstack.folders import CHECKOUT
from webhooks.metrics import WebhooksCollector

CONTRIB = CHECKOUT / 'contrib'
ALERTS = CONTRIB / 'prometheus-rules.yml'
RULES = yaml.safe_load(ALERTS.read_text())['groups'][0]['rules']
DASHBOARD = json.loads((CONTRIB / 'grafana-dashboard.json').read_text())
METRIC = re.compile(r'\bwebhooks_\w+')
# What is in braces, and what is summed by.
LABELS = re.compile(r'\{([^{}]*)\}|\bby \(([^)]*)\)')
LABEL = re.compile(r'([a-z_]+)(?==|,|$)')


def queries() -> list[str]:
    panels = [target['expr'] for panel in DASHBOARD['panels'] for target in panel['targets']]
    return [*panels, *(rule['expr'] for rule in RULES)]


@pytest.fixture
def samples(saves: None) -> dict[str, set[str]]:
    """Return {name: labels} of what is scraped."""
    subscribe(NOWHERE, Site)
    metrics = WebhooksCollector().collect()
    return {sample.name: set(sample.labels) for metric in metrics for sample in metric.samples}


@pytest.mark.parametrize('query', queries())
def test_it_asks_for_metrics_and_labels_that_exist(samples, query):
    names = METRIC.findall(query)
    assert names
    assert set(names) <= samples.keys()
    asked = {label for group in LABELS.findall(query) for label in LABEL.findall(''.join(group))}
    assert asked <= set().union(*(samples[name] for name in names))


def test_every_metric_is_on_the_dashboard(samples):
    shown = set(METRIC.findall(' '.join(queries())))
    assert samples.keys() - shown == set()


def test_the_variable_of_the_dashboard_is_a_label_that_exists(samples):
    (variable,) = [one for one in DASHBOARD['templating']['list'] if one['type'] == 'query']
    metric, label = re.fullmatch(r'label_values\((\w+), (\w+)\)', variable['definition']).groups()
    assert label in samples[metric]


def test_the_docs_say_of_each_alert_what_to_do():
    listed = (CHECKOUT / 'docs/operations.md').read_text().partition('### Alerts')[2].partition('\n## ')[0]
    assert re.findall(r'^\| `(\w+)` \| .{40,} \|$', listed, re.MULTILINE) == [rule['alert'] for rule in RULES]


@pytest.mark.skipif(not shutil.which('promtool'), reason='promtool is not installed')
def test_prometheus_takes_the_rules():
    answer = subprocess.run(['promtool', 'check', 'rules', ALERTS], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
