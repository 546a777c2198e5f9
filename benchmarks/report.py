from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """Both hold the figures of all turns. The table shows medians."""

    what: str
    unit: str
    ours: Sequence[float]
    builtin: Sequence[float] = ()

    def cells(self) -> list[str]:
        ours = median(self.ours)
        if not self.builtin:
            return [self.what, self.unit, _figure(ours), '', '']
        builtin = median(self.builtin)
        return [self.what, self.unit, _figure(ours), _figure(builtin), _ratio(ours, builtin)]


def table(rows: Sequence[Row]) -> str:
    head = ['', 'unit', 'ours', 'built-in', 'ours / built-in']
    return '\n'.join([_join(head), _join(['---'] * len(head)), *map(line, rows)])


def line(row: Row) -> str:
    return _join(row.cells())


def _join(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _figure(value: float) -> str:
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def _ratio(ours: float, builtin: float) -> str:
    return f'{ours / builtin:.3g}' if builtin > 0 else ''


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
