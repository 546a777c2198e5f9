from collections.abc import Iterator, Sequence

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import conf
from ...services import builtin_import
from ...services.builtin_import import Plan


class Command(BaseCommand):
    help = (
        "Take over NetBox's own webhooks: each event rule that sends one becomes a webhook of the same name, which "
        'sends the same body. A rule that cannot be carried over is listed with the reason and stays as it is.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--dry-run', action='store_true', help='only say what would be done; change nothing')
        parser.add_argument(
            '--disable-builtin',
            action='store_true',
            help='switch off the event rules that are carried over, in the same transaction',
        )

    def handle(self, *args, **options) -> None:
        if options['disable_builtin'] and not conf.get().enabled:
            raise CommandError('WEBHOOKS_ENABLED is not True: with the event rules off, nobody would send anything')
        plans = builtin_import.plan()
        if not plans:
            self.stdout.write('No event rule sends a webhook: there is nothing to import')
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
            yield f'  the event rule {"would be" if dry_run else "is"} switched off'
        elif disable_builtin and plan.rule.enabled:
            yield '  the event rule stays on'


def _outcome(plan: Plan, would: str) -> str:
    if plan.is_new:
        return f'{would}imported' + ('' if plan.rule.enabled else ', disabled as the event rule is')
    if plan.existing is None:
        return 'cannot be carried over'
    gaps = plan.gaps()
    return 'is there already' + (f', and differs from the event rule in: {", ".join(gaps)}' if gaps else '')
