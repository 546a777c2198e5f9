import json
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from jinja2 import Environment
from support.cases import first

from webhooks.templating import process, renderer
from webhooks.templating.environment import MAX_TEMPLATE_ERROR_CHARS
from webhooks.templating.environment import Environment as OurEnvironment
from webhooks.templating.errors import RenderError

pytestmark = pytest.mark.usefixtures('db')

SECRET = 'in the settings'
CONTEXT = {'event': 'updated', 'data': {'name': 'Bern', 'tags': [{'name': 'a'}, {'name': 'b'}], 'update': 1}}

# Seconds. Without a limit, these templates would take minutes.
PATIENCE = 30

# Doubling 60 times takes little memory, but walking it never ends.
NESTED = '{% set a=[0,0] %}{% set b=[0,0] %}' + '{% set a=[a,a] %}{% set b=[b,b] %}' * 60
# Tuples can be keys.
NESTED_TUPLE = '{% set a=(0,0) %}' + '{% set a=(a,a) %}' * 60
LONG = '(range(100000)|list) * 100'


def render(template: str, **context: Any) -> str:
    return renderer.render(template, json.dumps(CONTEXT | context))


def reason(template: str) -> str:
    with pytest.raises(RenderError) as caught:
        render(template)
    return str(caught.value)


def rendered_or_refused(template: str) -> str:
    try:
        return render(template)
    except RenderError:
        return ''


def shows_internals(text: str) -> bool:
    return any(word in text for word in ('class', 'function', 'environ'))


class TestWhatWorks:
    @pytest.mark.parametrize(
        ('template', 'text'),
        [
            ('{{ event }}: {{ data.name }}', 'updated: Bern'),
            ('{{ data.tags|map(attribute="name")|join(",") }}', 'a,b'),
            ('{% for tag in data.tags if tag.name != "a" %}{{ loop.index }}{{ tag.name }}{% endfor %}', '1b'),
            ('{% for x in [] %}{% else %}none{% endfor %}', 'none'),
            ('{% for x in [1, [2]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}', '12'),
            ('{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}', '1213'),
            ('{% macro m() %}<{{ caller(5) }}>{% endmacro %}{% call(n) m() %}{{ n }}{% endcall %}', '<5>'),
            ('{% set ns = namespace(n=0) %}{% for x in [1, 2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}', '3'),
            ('{{ 1 < 2 < 3 }} {{ "a" in "abc" }} {{ 2 ** 10 }} {{ "%05.1f" % 3.14 }}', 'True True 1024 003.1'),
            ('{{ "a" ~ 1 ~ none }} {{ {"k": [1, 2]}["k"][1] }} {{ [1, 2, 3][1:] }}', 'a1None 2 [2, 3]'),
            ('{{ "{:>5}|{}".format("x", event) }}', '    x|updated'),
            ('{{ data|tojson }}', '{"name": "Bern", "tags": [{"name": "a"}, {"name": "b"}], "update": 1}'),
            ('{{ [3, 1]|sort }} {{ [1, 1]|unique|list }} {{ 3.14159|round(2) }}', '[1, 3] [1] 3.14'),
            ('{{ nothing }}{{ nothing.more|default("-") if nothing is defined }}', ''),
            ('{% if "a" is eq "a" %}yes{% endif %}', 'yes'),
            ('plain', 'plain'),
            ('', ''),
        ],
    )  # fmt: skip
    def test_everyday_templates_render(self, template: str, text: str):
        assert render(template) == text

    def test_a_character_written_as_in_json(self):
        assert render(r'{{ "\ud83d\ude00" }}') == '😀'

    def test_long_text_is_stripped(self):
        assert render('{{ (" " * 500000 ~ "a").strip() ~ (" " * 500000 ~ "a")|trim }}') == 'aa'

    def test_header_safe_removes_line_breaks(self):
        assert render('{{ name | header_safe }}', name='a\r\nX-Evil: 1\x00\x7f') == 'aX-Evil: 1'

    def test_netboxs_filters_work(self, settings):
        settings.JINJA_FILTERS = {'shout': lambda text: f'{text}!'}
        assert render('{{ event|shout }}') == 'updated!'

    def test_header_safe_is_not_replaced_by_another(self, settings):
        settings.JINJA_FILTERS = {'header_safe': lambda text: text}
        assert render('{{ "a\nb" | header_safe }}') == 'ab'

    def test_a_payload_of_a_thousand_objects(self):
        data = [{'id': number, 'name': f'site {number}', 'tags': [{'name': 'x'}] * 20} for number in range(1000)]
        text = render(
            '{% for one in data %}{{ one|tojson }}{{ one.tags|map(attribute="name")|join }}{% endfor %}', data=data
        )
        assert len(text) > 300_000


class TestEscapes:
    """Jinja sandboxes had these escapes."""

    @pytest.mark.parametrize(
        'template',
        [
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            '{{ [].__class__.__base__.__subclasses__() }}',
            "{{ data|attr('__class__') }}",
            "{{ data|map(attribute='__class__')|list }}",
            "{{ ([data]|groupby('__class__'))[0].grouper.__mro__ }}",
            "{{ ([data]|sort(attribute='__class__'))[0].__class__.mro() }}",
            "{{ '{0.__class__.__mro__}'.format(data) }}",
            "{{ '{x.__class__.__mro__}'.format_map({'x': data}) }}",
            "{{ ('{0.__class__.__mro__}'|attr('format'))(data) }}",
            "{{ ''['format'].__self__.__class__.__mro__ }}",
            '{{ cycler.__init__.__globals__.os.environ }}',
            '{{ joiner.__init__.__globals__ }}',
            '{{ namespace.__init__.__globals__ }}',
            '{{ dict.mro()[1].__subclasses__() }}',
            '{{ dict.__base__.__subclasses__() }}',
            '{{ self.__init__.__globals__ }}',
            '{% macro m() %}{% endmacro %}{{ m._environment.filters }}',
            '{% for x in [1] %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}',
            "{{ (data|string).join.__self__.__class__.__mro__ }}",
            '{{ data.update.__class__.__mro__ }}',
            '{{ (1).__add__.__objclass__.__base__ }}',
            '{{ nothing.__class__.__init__.__globals__ }}',
            "{{ nothing|attr('_undefined_exception') }}{{ nothing._undefined_exception.__mro__ }}",
            "{% set x = ''|attr('\\x5f\\x5fclass\\x5f\\x5f') %}{{ x.mro() }}",
            "{{ ''['\\u005f\\u005fclass\\u005f\\u005f']['mro']() }}",
        ],
    )  # fmt: skip
    def test_nothing_internal_that_jinja_shows_is_seen(self, template: str):
        assert shows_internals(Environment().from_string(template).render(CONTEXT))
        assert not shows_internals(rendered_or_refused(template))

    @pytest.mark.parametrize(
        'template',
        [
            "{{ [data]|map(attribute='__class__.__mro__')|list }}",
            "{{ '{0.__class__.__init__.__globals__}'.format(data) }}",
            "{{ ['{0.__class__.__mro__}']|map('format', data)|first.__class__ }}",
            '{{ range.__globals__ }}',
            '{{ self._TemplateReference__context.environment.finalize.__globals__ }}',
            '{% macro m() %}{% endmacro %}{{ m.__globals__ }}',
            '{% macro m() %}{{ caller.__func__.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}',
        ],
    )
    def test_nothing_internal_that_only_our_own_code_could_show_is_seen(self, template: str):
        assert not shows_internals(rendered_or_refused(template))

    @pytest.mark.parametrize(
        'template',
        [
            "{% include '/etc/passwd' %}",
            "{% import '/etc/passwd' as x %}",
            "{% extends '/etc/passwd' %}",
            "{% from '../conf/configuration.py' import SECRET_KEY %}",
            "{% include ['a', 'b'] %}",
        ],
    )
    def test_no_file_is_read(self, template: str):
        assert 'TemplateNotFound' in reason(template) or 'TemplatesNotFound' in reason(template)

    @pytest.mark.parametrize(
        'template',
        [
            '{{ settings }}', '{{ config }}', '{{ request }}', "{{ 'PATH'|env }}", "{{ 'SECRET_KEY'|env }}",
            '{{ environment }}', '{{ context }}', '{{ webhook }}', '{{ g }}', '{{ self.environment }}',
            '{{ eval_ctx }}', '{{ __builtins__ }}', '{{ __import__ }}', '{{ __name__ }}',
        ],
    )  # fmt: skip
    def test_no_setting_and_no_variable_of_the_process_is_seen(self, template: str):
        assert render(template) in ('', 'None')

    def test_no_statement_that_python_would_run_is_taken(self):
        for statement in ('{% do x %}', '{% exec "1" %}', '{% debug %}', '{% python %}'):
            assert 'unknown tag' in reason(statement)


class TestTime:
    @pytest.fixture(autouse=True)
    def little_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renderer, 'TEMPLATE_SECONDS', 0.3)

    @pytest.mark.parametrize(
        'template',
        [
            '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}',
            '{% macro m() %}{% for a in range(99999) %}{% endfor %}{% endmacro %}'
            '{% for a in range(999) %}{{ m() }}{% endfor %}',
            '{% for a in range(99999) if (range(99999)|sum) < 0 %}{% endfor %}',
            '{{ ([range(100000)] * 1000000)|map("sum")|sum }}',
            '{{ ([range(100000)] * 100000)|map("list")|map("length")|sum }}',
            '{% for x in ([range(100000)] * 100000)|map("sum") if false %}{% endfor %}',
            '{% for x in range(99999) %}{{ range(99999)|map("string")|join|length }}{% endfor %}',
            '{% for x in range(99999) %}{% set y = range(99999)|list %}{% endfor %}',
            # This filter yields endless empty lists, and these consumers never check the time.
            '{{ []|slice(1000000000000)|sum(start=[]) }}',
            '{{ []|slice(1000000000000)|max }}',
            '{{ []|slice(1000000000000)|select|list }}',
            '{{ 5 in ([]|slice(1000000000000)) }}',
            '{% for x in []|slice(1000000000000) if x %}{% endfor %}',
        ],
    )
    def test_an_endless_template_ends_in_time(self, template: str):
        began = time.monotonic()
        message = reason(template)
        assert time.monotonic() - began < PATIENCE
        assert 'takes more than 2 seconds' in message or 'too much memory' in message

    # One of each kind. `--long`: all of them.
    @pytest.mark.parametrize(
        'template',
        first(9, [
            NESTED + '{{ a == b }}',
            NESTED + '{{ [a, b]|sort }}',
            NESTED + '{{ a|tojson }}',
            NESTED_TUPLE + '{{ {a: 1}|length }}',
            '{% set n = namespace(x=0) %}{% for i in range(99) %}{% set n.x = {1: n.x, 2: n.x} %}{% endfor %}{{ n.x }}',
            f'{{{{ ({LONG})|sort|length }}}}',
            '{{ ("<!---->" * 100000)|striptags }}',
            '{{ ("http://a.b/ " * 100000)|urlize }}',
            '{{ ("a" * 1000000).rfind("a" * 400000 ~ "b" ~ "a" * 100000) }}',
            NESTED + '{{ 1 < 2 == (a == b) }}',
            NESTED + '{{ a in [b] }}',
            NESTED + '{{ a is eq b }}',
            NESTED + '{{ a is in [b] }}',
            NESTED + '{{ [a]|select("eq", b)|list }}',
            NESTED + '{{ [a, b]|unique|list }}',
            NESTED + '{{ [a, b]|max }}',
            NESTED + '{{ [a].index(b) }}',
            NESTED + '{{ [a].count(b) }}',
            NESTED + '{{ a }}',
            NESTED + '{{ a ~ "" }}',
            NESTED + '{{ "%s" % a }}',
            NESTED + '{{ "{}".format(a) }}',
            NESTED + '{{ a|string }}',
            NESTED + '{{ a|pprint }}',
            NESTED + '{% for x in [1, 2] %}{{ loop.changed(a, b) }}{% endfor %}',
            NESTED + '{% if a == b %}{% endif %}',
            NESTED + '{{ 1 if a == b }}',
            NESTED + '{% filter replace("x", a|string) %}{% endfilter %}',
            NESTED_TUPLE + '{{ {}[a] }}',
            NESTED_TUPLE + '{{ {}.get(a) }}',
            NESTED_TUPLE + '{{ dict([(a, 1)]) }}',
            NESTED_TUPLE + '{{ [{}]|map(attribute=a)|list }}',
            f'{{{{ ({LONG})|map("string")|map("length")|sum }}}}',
            f'{{{{ ",".join({LONG}) }}}}',
            '{{ ("a " * 100000)|wordwrap }}',
            '{{ ("a" * 2000000).strip("b" * 1900000 ~ "a") }}',
            '{{ ("a" * 2000000)|trim("b" * 1900000 ~ "a") }}',
        ]),
    )  # fmt: skip
    def test_an_operation_that_python_cannot_interrupt_ends_in_time(self, monkeypatch, template: str):
        """Some end by themselves."""
        began = time.monotonic()
        rendered_or_refused(template)
        assert time.monotonic() - began < PATIENCE
        monkeypatch.undo()
        assert render('{{ event }}') == 'updated'


class TestMemory:
    @pytest.mark.parametrize(
        'template',
        [
            "{{ 'x' * 10**10 }}", "{{ [0] * 10**10 }}", "{{ '%9999999999d' % 1 }}", "{{ '{:9999999999}'.format(1) }}",
            "{{ 'x'|center(9999999999) }}", "{{ ('x' * 10**6)|replace('x', 'y' * 10**6) }}", "{{ '%.999999999f' % 1 }}",
        ],
    )  # fmt: skip
    def test_too_much_memory_ends_the_template(self, template: str):
        assert 'needs too much memory' in reason(template)

    def test_a_long_result_ends_the_template(self):
        assert 'more than 4194304 characters' in reason('{% for x in range(5) %}{{ "x" * 1000000 }}{% endfor %}')

    def test_the_process_may_grow_again_afterwards(self):
        reason("{{ 'x' * 10**10 }}")
        assert len(bytearray(2 * process.MEMORY_GROWTH_BYTES)) == 2 * process.MEMORY_GROWTH_BYTES

    def test_the_template_compiler_computes_no_constant_expressions(self):
        """Saving a webhook compiles its templates."""
        began = time.monotonic()
        for template in ("{{ 'x'|center(9999999999) }}", '{{ ("a" * 10)|replace("a", "b") }}', NESTED + '{{ a == b }}'):
            renderer.check(template)
        assert time.monotonic() - began < PATIENCE

    def test_a_filter_does_not_run_when_a_template_is_checked(self, settings, tmp_path):
        settings.JINJA_FILTERS = {'make': lambda path: Path(path).touch()}
        renderer.check(f"{{{{ '{tmp_path / 'made'}' | make }}}}")
        assert not list(tmp_path.iterdir())


class TestErrors:
    def test_a_template_that_calls_itself_ends(self):
        assert 'calls itself without end' in reason('{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}')
        assert 'calls itself without end' in reason('{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}')

    @pytest.mark.parametrize(
        ('template', 'line'),
        [
            ('{{ a', 1),
            ('one\ntwo\n{% if %}', 3),
            ('one\n{% for x in y %}\n', 2),
            ('a\n{{ x|no_such_filter }}', 2),
            ('a\n\n{{ x is no_such_test }}', 3),
            ('{% unknown %}', 1),
        ],
    )
    def test_a_mistake_is_found_before_it_is_rendered(self, template: str, line: int):
        with pytest.raises(RenderError, match=rf'\(line {line}\)$'):
            renderer.check(template)

    @pytest.mark.parametrize(
        'template',
        [
            '{{ ' + '(' * 3000 + '1' + ')' * 3000 + ' }}',
            '{% for x in [1] %}' * 30 + '{% endfor %}' * 30,
            '{{ 1' + '+1' * 9999 + ' }}',
        ],
    )  # fmt: skip
    def test_a_template_that_is_too_deep_is_found_before_it_is_rendered(self, template: str):
        with pytest.raises(RenderError):
            renderer.check(template)

    @pytest.mark.parametrize(
        ('template', 'message'),
        [
            ('one\ntwo {{ data.nothing.more }}', "UndefinedError: 'dict object' has no attribute 'nothing' (line 2)"),
            ('{{ 1 / 0 }}', 'ZeroDivisionError: division by zero (line 1)'),
            ('\n\n{{ data + 1 }}', 'TypeError: unsupported operand'),
            ('{{ "x"|int + "x" }}', 'TypeError: unsupported operand'),
            ('{{ data() }}', "TypeError: 'dict' object is not callable (line 1)"),
        ],
    )
    def test_an_error_of_a_template_names_its_line(self, template: str, message: str):
        assert message in reason(template)
        assert '(line' in reason(template)

    def test_a_long_error_is_cut_before_its_line(self):
        text = reason("\n{{ {}['x' * 48000000].a }}")
        assert text.startswith("UndefinedError: 'dict object' has no attribute 'xxx")
        assert text.endswith('x (line 2)')
        assert len(text) <= MAX_TEMPLATE_ERROR_CHARS + len(' (line 2)')

    def test_whatever_a_filter_raises_is_an_error_of_the_template(self, settings):
        def broken(value: Any) -> Any:
            raise RuntimeError('it broke')

        settings.JINJA_FILTERS = {'broken': broken}
        assert reason('\n{{ 1|broken }}') == 'RuntimeError: it broke (line 2)'

    def test_so_is_a_database_error_of_a_filter(self, settings):
        def broken(value: Any) -> Any:
            raise OperationalError('it broke')

        settings.JINJA_FILTERS = {'broken': broken}
        assert reason('\n{{ 1|broken }}') == 'OperationalError: it broke (line 2)'

    def test_where_a_renderer_has_lost_its_connection_another_one_is_asked(self, settings):
        asked = []

        def works_once(value: Any) -> Any:
            asked.append(value)  # runs in the renderer's process
            if len(asked) > 1:
                raise OperationalError('the connection is lost')
            return value

        settings.JINJA_FILTERS = {'works_once': works_once}
        with renderer.shared():
            assert [render('{{ 1|works_once }}') for _ in range(2)] == ['1', '1']

    def test_a_dictionary_that_grows_under_a_loop_is_an_error_of_the_template(self):
        template = '{% for key in data %}{% set _ = data.update({key ~ "x": 1}) %}{% endfor %}'
        with pytest.raises(RenderError, match='changed size'):
            render(template, data={'name': 'x'})

    def test_half_a_surrogate_pair_is_an_error_of_the_template(self):
        assert 'half a surrogate pair' in reason(r'{{ "\ud83d" }}')

    def test_an_error_inside_a_macro_names_the_inner_line(self):
        assert '(line 2)' in reason('{% macro m() %}\n{{ 1 / 0 }}\n{% endmacro %}\n\n{{ m() }}')


def test_one_environment_does_not_spoil_the_next():
    render("{% set _ = data.update({'name': 'changed'}) %}", data={'name': 'x'})
    assert render('{{ range(3)|list }}') == '[0, 1, 2]'


def test_a_template_is_compiled_once():
    environment = OurEnvironment({})
    assert [environment.render('{{ a }}', json.dumps({'a': number})) for number in range(3)] == ['0', '1', '2']
    assert environment._compiled.cache_info().misses == 1
