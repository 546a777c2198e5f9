"""manage.py webhooks_import: make webhooks of NetBox's own ones."""

from collections.abc import Iterator, Sequence

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import conf
from ...services import builtin_import
from ...services.builtin_import import Plan


class Command(BaseCommand):
    """Imports event rules that send NetBox's own webhooks, and prints a line for each.

    It may also disable the rules.
    """

    help = (
        "Import NetBox's own webhooks. Each event rule that sends one becomes a webhook of this plugin, with the same "
        'name and the same body. A rule that cannot be imported is listed with the reason, and is not changed.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--dry-run', action='store_true', help='only show what would be done; change nothing')
        parser.add_argument(
            '--disable-builtin',
            action='store_true',
            help='also disable the imported event rules, so that nothing is sent twice',
        )

    def handle(self, *args, **options) -> None:
        if options['disable_builtin'] and not conf.get().enabled:
            raise CommandError(
                'The setting "enabled" (or WEBHOOKS_ENABLED) is not True, so nothing would be sent once the event '
                'rules are disabled. Set it to True first'
            )
        plans = builtin_import.plan()
        if not plans:
            self.stdout.write('There is nothing to import: no event rule sends a webhook')
            return
        lines = list(_report(plans, options['dry_run'], options['disable_builtin']))
        if not options['dry_run']:
            builtin_import.carry_out(plans, disable_builtin=options['disable_builtin'])
        self.stdout.write('\n'.join(lines))


def _report(plans: Sequence[Plan], dry_run: bool, disable_builtin: bool) -> Iterator[str]:
    would = 'would be ' if dry_run else ''
    for plan in plans:
        yield f'{plan.rule.name}: {_outcome(plan, would)}'
        for reason in plan.reasons:
            yield f'  {reason}'
        if disable_builtin and plan.may_be_disabled:
            yield f'  the event rule {"would be" if dry_run else "is"} disabled'
        elif disable_builtin and plan.rule.enabled:
            yield '  the event rule stays enabled'


def _outcome(plan: Plan, would: str) -> str:
    if plan.is_new:
        return f'{would}imported' + ('' if plan.rule.enabled else ', but disabled, like the event rule')
    if plan.existing is None:
        return 'cannot be imported'
    gaps = plan.gaps()
    return 'exists already' + (f', but differs from the event rule in: {", ".join(gaps)}' if gaps else '')
