"""Reliable webhooks for NetBox: every committed change is sent, at least once, in order per object."""

from core.exceptions import IncompatiblePluginError
from netbox.plugins import PluginConfig

from .version import COMPATIBILITY
from .version import VERSION as __version__

NOT_LOADED = (
    'Webhooks are off: changes are not recorded, and nothing is sent. '
    f'Install the version of netbox-webhooks for this NetBox: {COMPATIBILITY}'
)


class WebhooksConfig(PluginConfig):
    """Reads the settings and connects the plugin to NetBox, which makes it at its start."""

    name = 'webhooks'
    verbose_name = 'Webhooks'
    description = 'Reliable webhooks: every committed change is sent, at least once, in order per object'
    version = __version__
    author = 'The netbox-webhooks authors'
    base_url = 'webhooks'
    min_version = '4.7.0'
    max_version = '4.7.99'
    default_auto_field = 'django.db.models.BigAutoField'
    graphql_schema = 'graphql.schema.schema'
    django_apps = ['webhooks.django_admin.app.WebhooksAdminConfig']

    def __init__(self, *args):
        super().__init__(*args)
        from . import conf
        from .outbox import first_receiver

        if conf.get().enabled:
            first_receiver.connect()

    @classmethod
    def validate(cls, user_config, netbox_version):
        """Read the settings. NetBox calls it while its own settings load.

        A wrong setting raises ImproperlyConfigured, which names it and stops NetBox's start. NetBox in another
        version gets IncompatiblePluginError, and starts without the plugin.
        """
        try:
            super().validate(user_config, netbox_version)
        except IncompatiblePluginError as error:
            # NetBox shows it as a warning, and starts without the plugin.
            raise IncompatiblePluginError(f'{error} {NOT_LOADED}') from None
        from . import conf

        conf.install(user_config)
        if not conf.get().admin:
            cls.django_apps = []

    def import_models(self):
        """Load our models, then register our event types.

        NetBox's forms of event rules list the types that are known when they are imported: when NetBox's own apps
        become ready. That is before `ready()` of a plugin.
        """
        super().import_models()
        from . import event_types

        event_types.register()

    def ready(self):
        """Register all parts of the plugin. If it is off, no signal is connected, so nothing is recorded."""
        super().ready()
        from . import branching, checks, conf, dashboard, jobs, visibility  # noqa: F401  (importing checks, dashboard and jobs registers them)
        from .as_code import definitions  # noqa: F401  (the same)
        from .django_admin import install

        if conf.get().admin:
            install.install()
        visibility.never_exempt()
        branching.stay_in_main()
        if conf.get().enabled:
            from . import signals
            from .ui import tabs

            signals.connect()
            tabs.register()


config = WebhooksConfig
