"""Says which document keeps a webhook or a credential."""

from typing import Any

from django.db import models
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class ManagedModel(models.Model):
    """Names the document that an object was applied from (as_code/). Both are blank if people made it by hand."""

    managed_by = models.CharField(
        _('managed by'), max_length=100, blank=True, default='', db_default='', editable=False
    )
    # File and line.
    managed_in = models.CharField(
        _('managed in'), max_length=500, blank=True, default='', db_default='', editable=False
    )

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save it, without blanks around its name, which a bulk rename leaves there: documents write it so."""
        self.name = self.name.strip()
        super().save(*args, **kwargs)

    @property
    def managed_note(self) -> str:
        """Return a sentence about edits by hand. '' if no document keeps the object."""
        if not self.managed_by:
            return ''
        text = gettext(
            'It is defined in {place}. Edit it there: changes made here are lost the next time it is applied.'
        )
        return text.format(place=self.managed_in)
