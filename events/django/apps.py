"""The Django application."""

from django.apps import AppConfig


class ClientConfig(AppConfig):  # type: ignore[misc]
    """Names the application. Its label is part of the tables' names."""

    name = __package__
    label = "invigilator_client"
    verbose_name = "Invigilator"
    default_auto_field = "django.db.models.BigAutoField"
