"""`python -m benchmarks [--quick] [section …]`, in the environment of `scripts/shell`."""

import argparse
import sys

import django

django.setup()

from benchmarks import (  # noqa: E402
    arrival,
    backfill,
    brokers,
    capacity,
    change_sets,
    claims,
    config_contexts,
    feed,
    fields,
    isolation,
    lists,
    mirrors,
    options,
    quiet,
    report,
    saves,
    sending,
    workers,
)
from benchmarks.sides import Bed  # noqa: E402
from devstack.receiver import Receiver  # noqa: E402

SECTIONS = {
    'saves': saves.measure,
    'options': options.measure,
    'sending': sending.measure,
    'change_sets': change_sets.measure,
    'quiet': quiet.measure,
    'workers': workers.measure,
    'arrival': arrival.measure,
    'isolation': isolation.measure,
    'backfill': backfill.measure,
    'config_contexts': config_contexts.measure,
    'feed': feed.measure,
    'fields': fields.measure,
    'claims': claims.measure,
    'capacity': capacity.measure,
    'log': capacity.measure_log,
    'lists': lists.measure,
    'mirrors': mirrors.measure,
    'brokers': brokers.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog='scripts/bench')
    parser.add_argument('sections', nargs='*', metavar='section', help=f'of {", ".join(SECTIONS)} (all)')
    parser.add_argument('--quick', action='store_true', help='one turn of each, with small numbers: does it still run?')
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f'no such section: {", ".join(unknown)}')
    with Receiver() as receiver:
        bed = Bed(receiver, quick=options.quick)
        rows = []
        for name in options.sections or SECTIONS:
            for row in SECTIONS[name](bed):
                rows.append(row)
                print(report.line(row), file=sys.stderr, flush=True)
    print(report.table(rows))


main()
