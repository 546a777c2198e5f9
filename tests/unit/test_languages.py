"""What the catalogues in webhooks/locale/ translate keeps its placeholders. For a release they are complete."""

import re
import subprocess
from gettext import translation
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[2]
LOCALE = ROOT / 'webhooks' / 'locale'
LANGUAGES = ('de', 'es', 'fr', 'ja', 'pt')
# Never translated: placeholders, markup, masks and names.
FIXED = re.compile(
    r'%\(\w+\)\w|%[sd%]|\{\{.*?\}\}|\{\w*\}|</?(?:a|code|strong)\b[^>]*>|&\w+;|\*{8}|https?://|[A-Za-z]+_\w+|webhook-id'
)


def catalogue(language: str) -> Catalog:
    with (LOCALE / language / 'LC_MESSAGES' / 'django.po').open('rb') as file:
        return read_po(file, locale=language)


def messages(language: str) -> list[Message]:
    return [message for message in catalogue(language) if message.id]


def finished(language: str) -> list[Message]:
    return [message for message in messages(language) if all(forms(message.string)) and not message.fuzzy]


def forms(text: str | tuple[str, ...]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def fixed(text: str) -> tuple[str, ...]:
    return tuple(sorted(FIXED.findall(text)))


def test_these_languages_are_there():
    assert tuple(sorted(folder.name for folder in LOCALE.iterdir())) == LANGUAGES


@pytest.mark.parametrize('language', LANGUAGES)
class TestCatalogue:
    @pytest.mark.release
    def test_every_text_is_translated(self, language):
        found = messages(language)
        assert len(found) > 500
        assert [message.id for message in found if not all(forms(message.string))] == []

    @pytest.mark.release
    def test_no_guess_of_msgmerge_is_left(self, language):
        assert [message.id for message in messages(language) if message.fuzzy] == []

    def test_a_translation_has_the_placeholders_of_its_text(self, language):
        for message in finished(language):
            expected = {fixed(text) for text in forms(message.id)}
            assert {fixed(text) for text in forms(message.string)} <= expected, message.id

    def test_plurals_have_all_forms(self, language):
        plurals = [message for message in finished(language) if not isinstance(message.id, str)]
        assert {len(message.string) for message in plurals} == {catalogue(language).num_plurals}

    def test_it_is_compiled(self, language):
        compiled = translation('django', LOCALE, [language])
        single = [message for message in finished(language) if isinstance(message.id, str)]
        for message in single:
            found = compiled.pgettext(message.context, message.id) if message.context else compiled.gettext(message.id)
            assert found == message.string, 'run scripts/messages'


@pytest.mark.parametrize(
    ('language', 'count', 'text'),
    [
        ('de', 0, '0 Objekte'),
        ('de', 1, '1 Objekt'),
        ('es', 1, '1 objeto'),
        ('es', 2, '2 objetos'),
        ('fr', 0, '0 objet'),
        ('fr', 2, '2 objets'),
        ('ja', 1, 'オブジェクト 1 件'),
        ('ja', 2, 'オブジェクト 2 件'),
        ('pt', 1, '1 objeto'),
        ('pt', 2, '2 objetos'),
    ],
)
def test_the_right_form_is_chosen(language, count, text):
    compiled = translation('django', LOCALE, [language])
    assert compiled.ngettext('%(shown)s object', '%(shown)s objects', count) % {'shown': count} == text


@pytest.mark.release
def test_there_is_no_text_that_the_catalogues_lack():
    command = [ROOT / 'scripts' / 'messages', '--check']
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize('text', ['%(count)s', '%d', '{name}', '{}', '<a href="x">', '********', 'allowed_models'])
def test_placeholders_of_all_kinds_are_found_in_a_text(text):
    assert fixed(f'Some {text} words') == (text,)
