"""Draws a bar chart as SVG: what went well above the axis, what failed below it.

The two differ by place and by pattern, so that nobody needs to tell colours apart. Widths are in percent and heights in
pixels: a chart fits any column without its text growing or shrinking. Colours are variables of NetBox's theme, or of
the admin's where that has none, so that they follow light and dark. Pure: all texts come from the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

# Pixels: the space for bars, for a line of text above, between and below them.
PLOT = 120
LINE = 18
# A bar for anything but nothing can be seen and pointed at.
LEAST = 4
# The part of its slot that a bar fills.
FILL = 0.7

GOOD = 'var(--tblr-blue, var(--wh-blue, currentColor))'
BAD = 'var(--tblr-red, var(--wh-red, currentColor))'
STRIPES = 'webhooks-stripes'


@dataclass(frozen=True)
class Bar:
    """One slot of time. `title` is what it says when pointed at, `tick` what stands below it, mostly nothing."""

    good: int
    bad: int
    title: str
    tick: str = ''


def draw(bars: Sequence[Bar], title: str, description: str) -> str:
    """Return an SVG element for use in a page. The same page may hold several."""
    scale = _Scale.of(bars)
    svg = Element('svg', {'class': 'webhooks-chart', 'role': 'img', 'width': '100%', 'height': str(scale.height)})
    # The title first: that is what a screen reader takes for its name.
    SubElement(svg, 'title').text = title
    SubElement(svg, 'desc').text = description
    _define_stripes(svg)
    _draw_scale(svg, scale)
    width = 100 / max(len(bars), 1)
    for number, bar in enumerate(bars):
        _draw_bar(svg, bar, number * width, width, scale)
    return tostring(svg, encoding='unicode')


def swatch(is_good: bool) -> str:
    """Return a small square with the look of a bar, for the legend beside a chart, which has the stripes."""
    svg = Element('svg', {'width': '14', 'height': '14', 'aria-hidden': 'true'})
    SubElement(svg, 'rect', {'x': '1', 'y': '1', 'width': '12', 'height': '12', **_look(is_good)})
    return tostring(svg, encoding='unicode')


@dataclass(frozen=True)
class _Scale:
    """Above and below the axis the same number has the same height; each side is as high as its highest bar needs."""

    most_good: int
    most_bad: int

    @classmethod
    def of(cls, bars: Sequence[Bar]) -> '_Scale':
        return cls(max((bar.good for bar in bars), default=0), max((bar.bad for bar in bars), default=0))

    def size(self, count: int) -> float:
        """Return the height of a bar."""
        return max(PLOT * count / (self.most_good + self.most_bad), LEAST) if count else 0

    @property
    def axis(self) -> float:
        return LINE + (self.size(self.most_good) if self.most_good or self.most_bad else PLOT)

    @property
    def bottom(self) -> float:
        return self.axis + self.size(self.most_bad)

    @property
    def height(self) -> int:
        """Of the whole, with the numbers of the scale and the ticks."""
        return round(self.bottom + LINE * (2 if self.most_bad else 1))


def _define_stripes(svg: Element) -> None:
    attributes = {'id': STRIPES, 'width': '5', 'height': '5', 'patternUnits': 'userSpaceOnUse'}
    pattern = SubElement(SubElement(svg, 'defs'), 'pattern', {**attributes, 'patternTransform': 'rotate(45)'})
    SubElement(pattern, 'line', {'y2': '5', 'stroke': BAD, 'stroke-width': '5'})


def _look(is_good: bool) -> dict[str, str]:
    return {'fill': GOOD} if is_good else {'fill': f'url(#{STRIPES})', 'stroke': BAD}


def _draw_scale(svg: Element, scale: _Scale) -> None:
    if scale.most_good:
        _write(svg, '0', LINE - 5, f'{scale.most_good:,}')
    if scale.most_bad:
        _write(svg, '0', scale.bottom + LINE - 5, f'{scale.most_bad:,}')
    line = {'x1': '0', 'x2': '100%', 'stroke': 'currentColor'}
    SubElement(svg, 'line', {**line, 'y1': _pixels(scale.axis), 'y2': _pixels(scale.axis)})


def _draw_bar(svg: Element, bar: Bar, left: float, width: float, scale: _Scale) -> None:
    group = SubElement(svg, 'g')
    SubElement(group, 'title').text = bar.title
    # The whole slot can be pointed at, also where nothing happened.
    slot = {'x': _percent(left), 'width': _percent(width), 'y': '0', 'height': '100%'}
    SubElement(group, 'rect', {**slot, 'fill': 'none', 'pointer-events': 'all'})
    place = {'x': _percent(left + width * (1 - FILL) / 2), 'width': _percent(width * FILL)}
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
