"""Reads the settings, typed, from the environment (prefix `INVIGILATOR_`) and a `.env` file.

Only `load()` reads the environment; importing this module does not.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from db import dsn
from events.broker_url import read_broker_url
from events.sharding import MAX_SHARDS
from worker import logs
from worker.durations import parse_duration
from worker.envfile import read_env_file
from worker.errors import ConfigurationError
from worker.misspelt import meant
from worker.secretfiles import SUFFIX, read_secret_files

PREFIX = "INVIGILATOR_"
ENV_FILE = "INVIGILATOR_ENV_FILE"
"""Names the file that settings are read from besides the environment: `.env` by default, none when it is empty."""

DEFAULT_ENV_FILE = ".env"

MAX_PORT = 65_535
_ADDRESS = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)

MIN_KEY_CHARS = 32

QueueType = Literal["classic", "quorum"]
WebRole = Literal["viewer", "operator", "admin"]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _names(value: object) -> object:
    return set(_listed(value)) if isinstance(value, str) else value


def _listed(value: object) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _pairs(value: object) -> Any:
    if not isinstance(value, str):
        return value
    pairs = [one.rpartition("=") for one in _listed(value)]
    if not all(name for name, _, _ in pairs):
        raise ValueError("must be GROUP=ROLE, and more of them after commas")
    return {name.strip(): role.strip() for name, _, role in pairs}


class Settings(BaseSettings):
    """The settings of one process. The README describes each. Secrets are printed as `**********`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: SecretStr | None = None
    database_pooler: Literal["none", "transaction"] = "none"
    broker_url: SecretStr | None = None
    data_dir: Path = Path(".invigilator")
    lms_url: str = "log:"
    lms_token: SecretStr | None = None
    lms_oauth_token_url: str | None = None
    lms_oauth_client_id: str | None = None
    lms_oauth_client_secret: SecretStr | None = None
    lms_oauth_scope: str | None = None
    lms_cert: Path | None = None
    lms_key: Path | None = None
    lms_headers: SecretStr | None = None
    lms_proxy: SecretStr | None = None
    smtp_url: SecretStr = SecretStr("log:")
    email_from: str = "exams@localhost"
    policies_file: Path | None = None
    templates_dir: Path | None = None
    command_keys_file: Path | None = None
    subscriptions_file: Path | None = None
    actor: Annotated[str, Field(max_length=255)] | None = None
    instance: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,64}$")] = "main"
    events_keep: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(days=30)
    command_shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] = 1
    effect_queues: QueueType = "classic"
    batch_size: Annotated[int, Field(ge=1, le=1_000)] = 100
    believe_time_for_s: Seconds = 86_400
    retry_base_s: Seconds = 2
    retry_cap_s: Seconds = 3600
    retry_for_s: Seconds = 604_800
    lease_s: Seconds = 60
    shard_lease_s: Seconds = 5
    poll_s: Seconds = 2
    heartbeat_s: Seconds = 5
    metrics_token: SecretStr | None = None
    call_timeout_s: Seconds = 10
    max_calls: Annotated[int, Field(ge=1, le=1_000)] = 16
    smtp_max_connections: Annotated[int, Field(ge=1, le=1_000)] = 4
    credit: Literal["on", "off"] = "on"
    instructor: Literal["on", "off"] = "on"
    log_format: logs.Format | None = None
    log_level: logs.Level = "info"
    flower_broker_api: SecretStr | None = None
    flower_port: Annotated[int, Field(ge=1, le=MAX_PORT)] | None = None
    flower_unauthenticated_api: bool = False
    web_address: str = "127.0.0.1:8080"
    web_url: str | None = None
    web_oidc_issuer: str | None = None
    web_oidc_client_id: str | None = None
    web_oidc_client_secret: SecretStr | None = None
    web_oidc_scope: str = "openid profile"
    web_oidc_roles_claim: str = "groups"
    web_trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_listed)] = ()
    web_roles: Annotated[Mapping[str, WebRole], NoDecode, BeforeValidator(_pairs)] = Field(
        default_factory=dict
    )
    web_session_key: SecretStr | None = None
    api_tokens_file: Path | None = None
    api_rate: Annotated[float, Field(ge=1, le=1_000_000)] = 100
    quarantine_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    quarantine_max_mb: Annotated[int, Field(ge=1, le=1_048_576)] = 1_024
    prune_older_than: Annotated[timedelta | None, BeforeValidator(_duration)] = None
    without_patches: Annotated[frozenset[str], NoDecode, BeforeValidator(_names)] = frozenset()

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(dsn.checked(value.get_secret_value()))

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_broker_url(value.get_secret_value())  # raises now, not at the first connection
        return value

    @field_validator("lms_url")
    @classmethod
    def _known_lms(cls, value: str) -> str:
        if value != "log:" and not value.startswith(("http://", "https://")):
            raise ValueError("must be log: or start with http:// or https://")
        return value.rstrip("/")

    @field_validator("smtp_url")
    @classmethod
    def _known_smtp(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url == "log:":
            return value
        if not url.startswith(("smtp://", "smtps://")):
            raise ValueError("must be log: or start with smtp:// or smtps://")
        authority = re.split("[/?#]", url.partition("://")[2])[0]
        if not re.match("[^:]", authority.rpartition("@")[2]):
            raise ValueError("must name a host after smtp:// or smtps://")
        return value

    @field_validator("web_address")
    @classmethod
    def _known_address(cls, value: str) -> str:
        host_and_port(value)
        return value

    @field_validator("web_url")
    @classmethod
    def _known_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not re.fullmatch(r"https?://[^/?#@\s]+/?", value, re.ASCII):
            raise ValueError("must be an address without a path, such as https://invigilator.example")
        return value.rstrip("/").lower()

    @field_validator("web_oidc_issuer")
    @classmethod
    def _known_issuer(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/]", value):
            raise ValueError("must start with https:// (http:// on this machine only)")
        return value

    @field_validator("web_session_key")
    @classmethod
    def _long_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_KEY_CHARS:
            raise ValueError(
                f"must have at least {MIN_KEY_CHARS} characters: `openssl rand -hex 32` makes one"
            )
        return value

    @model_validator(mode="after")
    def _deadline_within_lease(self) -> "Settings":
        # A try that outlives its lease may run beside its successor. Half leaves time to record the result.
        if self.call_timeout_s >= self.lease_s / 2:
            raise ValueError(
                f"{PREFIX}CALL_TIMEOUT_S ({self.call_timeout_s:g}) must be below half of "
                f"{PREFIX}LEASE_S ({self.lease_s:g})"
            )
        if self.retry_base_s > self.retry_cap_s:
            raise ValueError(f"{PREFIX}RETRY_BASE_S must not be above {PREFIX}RETRY_CAP_S")
        return self

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> "Settings":
        parts = (self.lms_oauth_token_url, self.lms_oauth_client_id, self.lms_oauth_client_secret)
        if any(parts) != all(parts) or (self.lms_oauth_scope and not any(parts)):
            raise ValueError(
                f"{PREFIX}LMS_OAUTH_TOKEN_URL, {PREFIX}LMS_OAUTH_CLIENT_ID and {PREFIX}LMS_OAUTH_CLIENT_SECRET "
                "go together: set all three or none"
            )
        if self.lms_token and any(parts):
            raise ValueError(f"{PREFIX}LMS_TOKEN and {PREFIX}LMS_OAUTH_… are both set: take one of them away")
        if self.lms_key and not self.lms_cert:
            raise ValueError(f"{PREFIX}LMS_KEY belongs to {PREFIX}LMS_CERT, which is not set")
        return self

    @model_validator(mode="after")
    def _one_way_to_the_console(self) -> "Settings":
        parts = (self.web_oidc_issuer, self.web_oidc_client_id, self.web_oidc_client_secret)
        if any(parts) != all(parts):
            raise ValueError(
                f"{PREFIX}WEB_OIDC_ISSUER, {PREFIX}WEB_OIDC_CLIENT_ID and {PREFIX}WEB_OIDC_CLIENT_SECRET "
                "go together: set all three or none"
            )
        if any(parts) and self.web_trusted_proxies:
            raise ValueError(
                f"{PREFIX}WEB_OIDC_… and {PREFIX}WEB_TRUSTED_PROXIES are both set: take one of them away"
            )
        return self


_SECRETS = frozenset(
    f"{PREFIX}{name.upper()}"
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
)
"""The variables whose value may also be in a file."""


def host_and_port(address: str) -> tuple[str, int]:
    """Split an address such as `127.0.0.1:8080` or `[::1]:8080`. The host has no brackets.

    Raises:
        ValueError: it is none.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > MAX_PORT:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return found["ipv6"] or found["host"], int(found["port"])


def load() -> Settings:
    """Read the settings from the environment, and from the file for what the environment does not say.

    A secret may also be in a file of its own, which the variable with `_FILE` at the end of its name names.

    Raises:
        ConfigurationError: a variable is wrong, or its name looks like a misspelt setting, or a file cannot be
            read. The text is one line. It names each wrong variable and what is allowed, or the line of the file.
    """
    environment = {name.upper(): value for name, value in os.environ.items()}
    file = _env_file(environment)
    variables = file | {name: value for name, value in environment.items() if value or name not in file}
    _judge_names(variables)
    variables |= read_secret_files(variables, _SECRETS)
    given: dict[str, Any] = {
        field: value
        for field in Settings.model_fields
        if (value := variables.get(f"{PREFIX}{field.upper()}"))
    }
    try:
        return Settings(_env_file=None, **given)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(error))) from None


def as_variables(settings: Settings) -> dict[str, str]:
    """Write settings as the environment variables that `load` reads as the same settings."""
    return {f"{PREFIX}{name.upper()}": _text(value) for name, value in settings if value is not None}


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, timedelta):
        return f"{value // timedelta(minutes=1)}m"
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{name}={role}" for name, role in value.items())
    return str(value.absolute() if isinstance(value, Path) else value)


def _env_file(environment: Mapping[str, str]) -> dict[str, str]:
    named = environment.get(ENV_FILE)
    if named == "" or (named is None and not os.path.lexists(DEFAULT_ENV_FILE)):
        return {}
    path = Path(os.path.expanduser(named or DEFAULT_ENV_FILE))  # noqa: PTH111 - pathlib's fails for unknown users
    variables = read_env_file(path, PREFIX)
    if ENV_FILE in variables:
        raise ConfigurationError(f"{path.absolute()}: {ENV_FILE} is read from the environment only")
    return variables


def _judge_names(variables: Mapping[str, str]) -> None:
    settings = {ENV_FILE, *(f"{PREFIX}{field.upper()}" for field in Settings.model_fields)}
    settings |= {f"{name}{SUFFIX}" for name in _SECRETS}
    unset = {name for name in settings if not variables.get(name)}
    misspelt = []
    for name in sorted(variables.keys() - settings):
        if right := meant(name, unset):
            misspelt.append(f"{name} is no setting: {right} is meant, or what it says would be ignored")
        elif name.startswith(PREFIX):
            logs.warn_once("a setting is ignored", setting=name, reason="this release has none of that name")
    if misspelt:
        raise ConfigurationError("; ".join(misspelt))


def _explain(error: ValidationError) -> list[str]:
    # Without the input, which may be a secret.
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        name = "".join(f"{PREFIX}{str(part).upper()} " for part in problem["loc"][:1])
        lines.append(f"{name}{message}")
    return lines
