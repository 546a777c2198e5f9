import json
import os
import re
import shutil
import subprocess
from pathlib import Path

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
# Labels are in braces, or after "by".
LABELS = re.compile(r'\{([^{}]*)\}|\bby \(([^)]*)\)')
LABEL = re.compile(r'([a-z_]+)(?==|,|$)')


def queries() -> list[str]:
    panels = [target['expr'] for panel in DASHBOARD['panels'] for target in panel['targets']]
    return [*panels, *(rule['expr'] for rule in RULES)]


@pytest.fixture
def samples(saves: None) -> dict[str, set[str]]:
    """Return {name: labels}."""
    subscribe(NOWHERE, Site)
    subscribe('', Site)
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


#
# With Prometheus' own tool
#

# A workflow sets CI, where nobody sees skipped tests.
with_promtool = pytest.mark.skipif(
    not shutil.which('promtool') and not os.environ.get('CI'), reason='promtool is not installed'
)


def buckets(counts: dict[str, int]) -> dict[str, str]:
    """Each bucket grows by its count every minute."""
    return {
        f'webhooks_attempt_seconds_bucket{{webhook="A",le="{limit}"}}': f'0+{count}x30'
        for limit, count in counts.items()
    }


# Half an hour that fires the alert, and another that does not.
ALERTING = {
    'WebhooksNoWorker': ({'webhooks_workers': '0x30'}, {'webhooks_workers': '1x30'}),
    'WebhooksUndispatched': ({'webhooks_events_undispatched': '1001x30'}, {'webhooks_events_undispatched': '1000x30'}),
    'WebhooksBacklogOld': ({'webhooks_oldest_age_seconds': '901x30'}, {'webhooks_oldest_age_seconds': '900x30'}),
    'WebhooksSuspended': ({'webhooks_suspended': '1x30'}, {'webhooks_suspended': '0x30'}),
    'WebhooksFailed': (
        {'webhooks_deliveries_closed_total{outcome="failed",webhook="A"}': '0+1x30'},
        {
            'webhooks_deliveries_closed_total{outcome="failed",webhook="A"}': '7x30',
            'webhooks_deliveries_closed_total{outcome="delivered",webhook="A"}': '0+1x30',
        },
    ),
    # 90 % or 99 % take ten seconds at most.
    'WebhooksSlow': (buckets({'10': 9, '30': 10, '+Inf': 10}), buckets({'10': 99, '30': 100, '+Inf': 100})),
    'WebhooksFeedUnread': (
        {'webhooks_feed_unread{webhook="A"}': '101x30'},
        {'webhooks_feed_unread{webhook="A"}': '100x30'},
    ),
    'WebhooksDatabase': ({'webhooks_database_problems': '1x30'}, {'webhooks_database_problems': '0x30'}),
    'WebhooksUnknown': ({'up': '1x30'}, {'webhooks_workers': '0x30'}),
}


def promtool(*arguments: str | Path) -> None:
    answer = subprocess.run(['promtool', *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@with_promtool
def test_prometheus_takes_the_rules():
    promtool('check', 'rules', ALERTS)


def test_each_alert_has_figures_that_let_it_fire():
    assert list(ALERTING) == [rule['alert'] for rule in RULES]


@with_promtool
@pytest.mark.parametrize('fires', [True, False])
@pytest.mark.parametrize('alert', ALERTING)
def test_an_alert_fires_at_its_figures_and_not_below(tmp_path: Path, alert: str, fires: bool):
    figures = ALERTING[alert][0 if fires else 1]
    firing = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    expected = [{'labels': f'{{alertname="{alert}"}}', 'value': 1}] if fires else []
    test = {
        'interval': '1m',
        'input_series': [{'series': name, 'values': values} for name, values in figures.items()],
        'promql_expr_test': [{'expr': firing, 'eval_time': '25m', 'exp_samples': expected}],
    }
    file = tmp_path / 'test.yml'
    file.write_text(yaml.safe_dump({'rule_files': [str(ALERTS)], 'evaluation_interval': '1m', 'tests': [test]}))
    promtool('test', 'rules', file)
