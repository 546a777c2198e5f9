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
        ('{% if data.status.value == "active" %}{{ event }}{% endif %}', ['status.value']),
        ('{% for name, value in data.custom_fields.items() %}{{ value }}{% endfor %}', ['custom_fields']),
        ('{{ data | tojson }} {{ snapshots.prechange.name }} {{ username }}', []),
        ('{% for change in changes %}{{ change.data.name }}{% endfor %}', ['name']),
        ('{{ changes[0].data.site.name }}', ['site.name']),
        ('{% macro m(x) %}{{ data.a }}{% endmacro %}{% call m(1) %}{{ data.b }}{% endcall %}', ['a', 'b']),
        ('{% set data = {} %}{{ data.name }}', []),
        ('{{ data[key] }}', []),
        ('{{ data.name', []),
        ('{{ "a" ~ data.name ~ data.asset_tag }}{{ {"k": data.serial} }}{{ [data.rack.id] }}',
         ['asset_tag', 'name', 'rack.id', 'serial']),
    ],
)  # fmt: skip
def test_keys_are_found_wherever_a_template_names_them(template: str, keys: list[str]):
    assert named_in(template) == keys
