import strawberry

from ..choices import FormatChoices, KindChoices, StatusChoices

__all__ = ('FormatEnum', 'KindEnum', 'StatusEnum')

FormatEnum = strawberry.enum(FormatChoices.as_enum('WebhooksFormatEnum', prefix='format'))
KindEnum = strawberry.enum(KindChoices.as_enum('WebhooksKindEnum', prefix='kind'))
StatusEnum = strawberry.enum(StatusChoices.as_enum('WebhooksStatusEnum', prefix='status'))
