from pathlib import Path

from utilities.testing import query_counts

# NetBox expects this file in the app's folder `tests`. UPDATE_QUERY_COUNTS=1 writes it anew.
query_counts._baseline_path = lambda _app_label: Path(__file__).with_name('query_counts.json')


class PluginAPI:
    view_namespace = 'plugins-api:webhooks'


class PluginViews:
    def _get_base_url(self) -> str:
        return f'plugins:webhooks:{self.model._meta.model_name}_{{}}'
