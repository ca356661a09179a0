"""Django settings of the peer: those of a lean production site, without anything that costs time needlessly.

PEER_DATABASE_URL: `postgresql+psycopg2://user:password@host:port/database`.
PEER_SERVICE_MS: the milliseconds that a mail takes. At 0, mail goes to Django's dummy backend.
"""

import os
from urllib.parse import unquote, urlsplit

_URL = urlsplit(os.environ["PEER_DATABASE_URL"])

DEBUG = False
SECRET_KEY = PROCTORING_USER_OBFUSCATION_KEY = "benchmark"  # noqa: S105 - nothing here is secret
ALLOWED_HOSTS: list[str] = []
USE_TZ = True
USE_I18N = False  # one language needs no translation, which is faster
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "eventtracking.django.apps.EventTrackingConfig",
    "waffle",
    "edx_when",
    "edx_proctoring",
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _URL.hostname,
        "PORT": _URL.port,
        "USER": unquote(_URL.username or ""),
        "PASSWORD": unquote(_URL.password or ""),
        "NAME": _URL.path.removeprefix("/"),
        "CONN_MAX_AGE": None,
        # Django does not use prepared statements by default. With them, 5 to 8 % less CPU is used than with
        # psycopg2.
        "OPTIONS": {"server_side_binding": True, "prepare_threshold": 5},
    }
}

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 1_000_000},  # the default of 300 would evict useful entries
    }
}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                ("django.template.loaders.cached.Loader", ["django.template.loaders.app_directories.Loader"])
            ]
        },
    }
]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
}

EMAIL_BACKEND = (
    "benchmarks.peer.services.SlowMail"
    if float(os.environ.get("PEER_SERVICE_MS", "0")) > 0
    else "django.core.mail.backends.dummy.EmailBackend"
)
DEFAULT_FROM_EMAIL = CONTACT_EMAIL = "exams@example.com"

# The tracker is set up, but sends its events nowhere.
EVENT_TRACKING_ENABLED = True
EVENT_TRACKING_BACKENDS: dict[str, object] = {}
EVENT_TRACKING_PROCESSORS: list[object] = []

ENV_ROOT = "/nonexistent"  # a part of a path that is never opened
SITE_NAME = "lms.example.com"
PLATFORM_NAME = "Example"
LEARNING_MICROFRONTEND_URL = "https://apps.example.com/learning"
PROCTORING_SETTINGS: dict[str, object] = {}
PROCTORING_BACKENDS: dict[str, object] = {"DEFAULT": "null", "null": {}}
