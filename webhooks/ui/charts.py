"""Draws a bar chart as SVG: successes above the axis, failures below.

Stripes mark failures, for people who cannot tell colours apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from django.contrib.humanize.templatetags.humanize import intcomma

# Heights. The longest bar above the axis and the longest below it share the plot's.
PLOT_PIXELS = 120
TEXT_LINE_PIXELS = 18
# A count of 1 beside thousands would vanish; therefore no bar is shorter.
MIN_BAR_PIXELS = 4
# The rest of the slot is a gap.
BAR_SHARE_OF_SLOT = 0.7

SUCCESS_COLOR = 'var(--tblr-blue, currentColor)'
FAILURE_COLOR = 'var(--tblr-red, currentColor)'
# The pattern's name. If a page holds several charts, each defines the same pattern.
STRIPES_ID = 'webhooks-stripes'


@dataclass(frozen=True)
class Bar:
    """One slot of the chart. `good` and `bad` are counts, `title` is the tooltip, and `tick` the text below or ''."""

    good: int
    bad: int
    title: str
    tick: str = ''


def draw(bars: Sequence[Bar], title: str, description: str) -> str:
    """Return the chart as an SVG element, as wide as the page lets it be, with all bars in their order.

    `title` and `description` are for screen readers. Texts are escaped. A page may hold several charts.
    """
    scale = _Scale.of(bars)
    svg = Element('svg', {'class': 'webhooks-chart', 'role': 'img', 'width': '100%', 'height': str(scale.height)})
    # Screen readers take the first element as the chart's name, so the title comes before all else.
    SubElement(svg, 'title').text = title
    SubElement(svg, 'desc').text = description
    _define_stripes(svg)
    _draw_scale(svg, scale)
    width = 100 / max(len(bars), 1)
    for number, bar in enumerate(bars):
        _draw_bar(svg, bar, number * width, width, scale)
    return tostring(svg, encoding='unicode')


def swatch(is_good: bool) -> str:
    """Return a small square as SVG, for the legend: how a success or a failure is drawn.

    A failure's stripes are defined by the chart, which must be on the same page.
    """
    svg = Element('svg', {'width': '14', 'height': '14', 'aria-hidden': 'true'})
    SubElement(svg, 'rect', {'x': '1', 'y': '1', 'width': '12', 'height': '12', **_look(is_good)})
    return tostring(svg, encoding='unicode')


@dataclass(frozen=True)
class _Scale:
    """How counts become pixels. Both sides of the axis share one scale."""

    most_good: int
    most_bad: int

    @classmethod
    def of(cls, bars: Sequence[Bar]) -> '_Scale':
        return cls(max((bar.good for bar in bars), default=0), max((bar.bad for bar in bars), default=0))

    def size(self, count: int) -> float:
        return max(PLOT_PIXELS * count / (self.most_good + self.most_bad), MIN_BAR_PIXELS) if count else 0

    @property
    def axis(self) -> float:
        return TEXT_LINE_PIXELS + (self.size(self.most_good) if self.most_good or self.most_bad else PLOT_PIXELS)

    @property
    def bottom(self) -> float:
        return self.axis + self.size(self.most_bad)

    @property
    def height(self) -> int:
        return round(self.bottom + TEXT_LINE_PIXELS * (2 if self.most_bad else 1))


def _define_stripes(svg: Element) -> None:
    attributes = {'id': STRIPES_ID, 'width': '5', 'height': '5', 'patternUnits': 'userSpaceOnUse'}
    pattern = SubElement(SubElement(svg, 'defs'), 'pattern', {**attributes, 'patternTransform': 'rotate(45)'})
    SubElement(pattern, 'line', {'y2': '5', 'stroke': FAILURE_COLOR, 'stroke-width': '5'})


def _look(is_good: bool) -> dict[str, str]:
    return {'fill': SUCCESS_COLOR} if is_good else {'fill': f'url(#{STRIPES_ID})', 'stroke': FAILURE_COLOR}


def _draw_scale(svg: Element, scale: _Scale) -> None:
    if scale.most_good:
        _write(svg, '0', TEXT_LINE_PIXELS - 5, intcomma(scale.most_good))
    if scale.most_bad:
        _write(svg, '0', scale.bottom + TEXT_LINE_PIXELS - 5, intcomma(scale.most_bad))
    line = {'x1': '0', 'x2': '100%', 'stroke': 'currentColor'}
    SubElement(svg, 'line', {**line, 'y1': _pixels(scale.axis), 'y2': _pixels(scale.axis)})


def _draw_bar(svg: Element, bar: Bar, left: float, width: float, scale: _Scale) -> None:
    group = SubElement(svg, 'g')
    SubElement(group, 'title').text = bar.title
    # Short bars are hard to point at; therefore the tooltip covers the whole slot.
    slot = {'x': _percent(left), 'width': _percent(width), 'y': '0', 'height': '100%'}
    SubElement(group, 'rect', {**slot, 'fill': 'none', 'pointer-events': 'all'})
    place = {'x': _percent(left + width * (1 - BAR_SHARE_OF_SLOT) / 2), 'width': _percent(width * BAR_SHARE_OF_SLOT)}
    for count, is_good in ((bar.good, True), (bar.bad, False)):
        if count:
            size = scale.size(count)
            top = scale.axis - size if is_good else scale.axis
            SubElement(group, 'rect', {**place, 'y': _pixels(top), 'height': _pixels(size), **_look(is_good)})
    if bar.tick:
        _write(svg, _percent(left), scale.height - 4, bar.tick)


def _write(svg: Element, x: str, y: float, text: str) -> None:
    look = {'fill': 'currentColor', 'font-size': '12'}
    SubElement(svg, 'text', {'x': x, 'y': _pixels(y), **look}).text = text


def _percent(value: float) -> str:
    return f'{value:.3f}%'


def _pixels(value: float) -> str:
    return f'{value:.1f}'
