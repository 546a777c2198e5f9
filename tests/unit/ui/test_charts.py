"""Success is above the axis, failure below, without need of colours."""

from itertools import pairwise
from xml.etree.ElementTree import Element, fromstring

import pytest

from webhooks.ui.charts import PLOT_PIXELS, STRIPES_ID, Bar, draw, swatch

STRIPED = f'url(#{STRIPES_ID})'


def drawn(*bars: Bar) -> Element:
    return fromstring(draw(bars, 'Deliveries', 'all of them'))


def solid(svg: Element) -> list[Element]:
    return [rect for rect in svg.iter('rect') if rect.get('fill', '').startswith('var(')]


def striped(svg: Element) -> list[Element]:
    return [rect for rect in svg.iter('rect') if rect.get('fill') == STRIPED]


def axis(svg: Element) -> float:
    return next(float(line.get('y1')) for line in svg.iterfind('line'))


def bottom(rect: Element) -> float:
    return float(rect.get('y')) + float(rect.get('height'))


def heights(rects: list[Element]) -> list[float]:
    return [float(rect.get('height')) for rect in rects]


def texts(svg: Element) -> list[str]:
    return [text.text for text in svg.iter('text')]


class TestBars:
    def test_good_ones_stand_on_the_axis_and_bad_ones_hang_from_it(self):
        svg = drawn(Bar(6, 2, ''), Bar(3, 1, ''))
        assert [bottom(rect) for rect in solid(svg)] == [axis(svg)] * 2
        assert [float(rect.get('y')) for rect in striped(svg)] == [axis(svg)] * 2

    def test_one_scale_for_both(self):
        svg = drawn(Bar(6, 2, ''), Bar(3, 1, ''))
        assert heights(solid(svg)) == [PLOT_PIXELS * 6 / 8, PLOT_PIXELS * 3 / 8]
        assert heights(striped(svg)) == [PLOT_PIXELS * 2 / 8, PLOT_PIXELS * 1 / 8]

    def test_one_failure_among_a_million_is_seen(self):
        """Three pixels can be seen and pointed at."""
        assert heights(striped(drawn(Bar(1_000_000, 1, ''))))[0] >= 3

    def test_nothing_is_drawn_of_nothing(self):
        svg = drawn(Bar(0, 0, ''), Bar(5, 0, ''))
        assert len(solid(svg)) == 1
        assert not striped(svg)

    def test_they_stand_in_the_order_of_time_and_do_not_touch(self):
        svg = drawn(*(Bar(1, 0, '') for _ in range(24)))
        spans = [(float(r.get('x')[:-1]), float(r.get('width')[:-1])) for r in solid(svg)]
        assert all(left + width < following for (left, width), (following, _) in pairwise(spans))
        assert sum(spans[-1]) < 100

    def test_they_fit_the_picture(self):
        svg = drawn(Bar(7, 5, '', 'now'))
        lowest = max(float(text.get('y')) for text in svg.iter('text'))
        assert max(bottom(rect) for rect in striped(svg)) < lowest < float(svg.get('height'))


class TestText:
    def test_it_has_a_name_and_a_description_first(self):
        svg = drawn(Bar(1, 1, ''))
        assert svg.get('role') == 'img'
        assert [(child.tag, child.text) for child in list(svg)[:2]] == [
            ('title', 'Deliveries'),
            ('desc', 'all of them'),
        ]

    def test_every_slot_says_what_it_is(self):
        svg = drawn(Bar(1, 0, 'one'), Bar(0, 0, 'none'))
        assert [group.find('title').text for group in svg.iterfind('g')] == ['one', 'none']

    def test_the_scale_names_the_most_of_either(self):
        assert texts(drawn(Bar(1200, 3, '', '10:00'), Bar(7, 4, ''))) == ['1,200', '4', '10:00']

    def test_no_text_becomes_markup(self):
        drawn = draw([Bar(1, 1, '<script>', '<script>')], '<script>', '"<script>')
        assert '&lt;script&gt;' in drawn
        assert '<script>' not in drawn


@pytest.mark.parametrize('bars', [[], [Bar(0, 0, '')]], ids=['no slot', 'nothing happened'])
def test_an_empty_chart_has_an_axis(bars):
    assert axis(drawn(*bars)) > 0


def test_the_legend_looks_like_the_bars():
    assert solid(fromstring(swatch(True)))
    assert striped(fromstring(swatch(False)))
