"""Run by an environment's own Python: imports every module of the client, and publishes in two ways.

Arguments: the broker's URL, then packages that are not there, whose modules cannot be imported.
"""

import pkgutil
import sys
from importlib import import_module
from types import ModuleType

import django
import invigilator_client
from django.conf import settings
from django.core.management import call_command

UPDATE = "exam.attempt.update-status.v1"


def import_all(package: ModuleType, missing: list[str]) -> None:
    """Import every module of a package."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in missing:
                raise


if __name__ == "__main__":
    broker_url, *missing = sys.argv[1:]
    settings.configure(
        INSTALLED_APPS=["invigilator_client.django"],
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "lms.sqlite3"}},
        INVIGILATOR={"BROKER_URL": broker_url, "SOURCE": "/lms/acme", "SHARDS": 1},
    )
    django.setup()
    import_all(invigilator_client, missing)
    assert not any(name.startswith("events.") for name in sys.modules), "the worker's package is not here"
    with invigilator_client.Publisher(broker_url, source="/lms/acme", shards=1) as lms:
        lms.update_status(exam_id="7", user_id="42", to_status="submitted", from_statuses=["started"])
    call_command("migrate", verbosity=0)
    invigilator_client.django.publish(UPDATE, exam_id="7", user_id="43", to_status="submitted")
    call_command("publish_commands", once=True)
