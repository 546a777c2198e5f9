"""The keys of an object that a template names."""

import pytest

from webhooks.templating.named_keys import named_in


@pytest.mark.parametrize(
    ('template', 'keys'),
    [
        ('plain text, data.name', []),
        ('{{ data.name }}', ['name']),
        ('{{ data["name"] }} {{ data.site["region"].name | upper }}', ['name', 'site.region.name']),
        ('{{ data.get("name") }} {{ data.site.get("name", "") | lower }}', ['name', 'site', 'site.name']),
        ('{{ data.name.upper() }}', ['name']),
        ('{{ data.name | default(data.display) }}', ['display', 'name']),
        ('{{ data.site.name if data.site else data.location.name }}', ['location.name', 'site', 'site.name']),
        ('{{ (data.tenant or data.site).name }}', ['site.name', 'tenant.name']),
        ('{% for tag in data.tags %}{{ tag.slug }}{% endfor %}', ['tags', 'tags.slug']),
        ('{% for tag in data.tags | sort(attribute="name") %}{{ tag.slug }}{% endfor %}',
         ['tags', 'tags.name', 'tags.slug']),
        ('{{ data.tags | map(attribute="slug") | join(",") }}', ['tags', 'tags.slug']),
        ('{{ data.tags | selectattr("slug", "equalto", "x") | list | length }}', ['tags', 'tags.slug']),
        ('{{ (data.tags | first).slug }} {{ data.tags[0].color }}', ['tags', 'tags.color', 'tags.slug']),
        ('{% for slug, found in data.tags | groupby("slug") %}{{ found[0].name }}{% endfor %}',
         ['tags', 'tags.name', 'tags.slug']),
        ('{% set place = data.site %}{{ place.name }}', ['site', 'site.name']),
        ('{% with place = data.site %}{{ place.name }}{% endwith %}', ['site', 'site.name']),
        ('{% set place, owner = data.site, data.tenant %}{{ place.name }}{{ owner.slug }}',
         ['site', 'site.name', 'tenant', 'tenant.slug']),
        ('{% if x %}{% set on = data.device %}{% else %}{% set on = data.virtual_machine %}{% endif %}{{ on.serial }}',
         ['device', 'device.serial', 'virtual_machine', 'virtual_machine.serial']),
        ('{% for one in [data.site, data.tenant] %}{{ one.name }}{% endfor %}',
         ['site', 'site.name', 'tenant', 'tenant.name']),
        ('{% for group in data.tags | groupby("color") %}{{ group.grouper }}{{ group.list[0].slug }}{% endfor %}',
         ['tags', 'tags.color', 'tags.slug']),
        ('{{ data | attr("serial") }} {{ data.tags | join(", ", "slug") }}', ['serial', 'tags', 'tags.slug']),
        ('{% for tag in data.tags | sort(false, false, "name,slug") %}{% endfor %}',
         ['tags', 'tags.name', 'tags.slug']),
        ('{% macro row(place) %}{{ place.name }}{% endmacro %}{{ row(data.site) }}{{ row(place=data.rack) }}',
         ['rack', 'rack.name', 'site', 'site.name']),
        ('{% macro row(data) %}{{ data.name }}{% endmacro %}{{ row(username) }}', []),
        ('{% for one in data.tags %}{{ one.slug }}{% endfor %}{{ one.name }}', ['tags', 'tags.slug']),
        ('{% for data in data.tags %}{{ data.slug }}{% endfor %}{{ data.serial }}', ['serial', 'tags', 'tags.slug']),
        ('{% set data = data.site %}{{ data.name }}', ['site', 'site.name']),
        ('{% if data.status.value == "active" %}{{ event }}{% endif %}', ['status.value']),
        ('{% for name, value in data.custom_fields.items() %}{{ value }}{% endfor %}', ['custom_fields']),
        ('{{ data | tojson }} {{ snapshots.prechange.name }} {{ username }}', []),
        ('{% for change in changes %}{{ change.data.name }}{% endfor %}', ['name']),
        ('{{ changes[0].data.site.name }}', ['site.name']),
        ('{% macro m(x) %}{{ data.a }}{% endmacro %}{% call m(1) %}{{ data.b }}{% endcall %}', ['a', 'b']),
        ('{% set data = {} %}{{ data.name }}', []),
        ('{{ data[key] }}', []),
        ('{% for key in ["status", "role"] %}{{ data[key].label or data.custom_fields[key ~ "_x"].y }}{% endfor %}',
         ['custom_fields']),
        ('{{ data.tags[-1].color }} {{ data.tags[:2][0].slug }}', ['tags.color', 'tags.slug']),
        ('{{ "{name}".format(name=data.name) }}', ['name']),
        ('{{ data.name', []),
        ('{{ "a" ~ data.name ~ data.asset_tag }}{{ {"k": data.serial} }}{{ [data.rack.id] }}',
         ['asset_tag', 'name', 'rack.id', 'serial']),
    ],
)  # fmt: skip
def test_keys_are_found_wherever_a_template_names_them(template: str, keys: list[str]):
    assert named_in(template) == keys


@pytest.mark.parametrize(
    'template',
    [
        '{% set d = data %}' + '{% set d = d.a or d.b %}' * 60,
        ''.join(
            f'{{% macro m{n}(x) %}}{{{{ m{n - 1}(x.a) }}}}{{{{ m{n - 1}(x.b) }}}}{{% endmacro %}}' for n in range(60)
        )
        + '{{ m59(data) }}',
        f'{{{{ {"(" * 3000}data.name{")" * 3000} }}}}',
    ],
    ids=['variables', 'macros', 'parentheses'],
)
def test_a_template_whose_lines_double_the_work_is_read_in_part(template: str):
    assert len(named_in(template)) < 5000
