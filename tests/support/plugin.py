"""Facts about a plugin that NetBox's test mixins need."""

from pathlib import Path

from utilities.testing import query_counts

# NetBox expects a list's number of queries in the app's folder `tests`. Ours are beside this file.
# UPDATE_QUERY_COUNTS=1 writes them anew.
query_counts._baseline_path = lambda _app_label: Path(__file__).with_name('query_counts.json')


class PluginAPI:
    view_namespace = 'plugins-api:webhooks'


class PluginViews:
    def _get_base_url(self) -> str:
        return f'plugins:webhooks:{self.model._meta.model_name}_{{}}'
