"""Reads the policies file: the policy of each proctoring provider (docs/rules.md, "Policies")."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from events.vocabulary import Status
from worker.errors import ConfigurationError
from worker.rules.policy import PRESETS, Policy
from worker.rules.policy_settings import PolicyError, policy_from
from worker.textfiles import read_toml


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of each provider; an unknown or missing provider has the default one.

    Example:
        >>> policies = Policies(providers={"acme": Policy(protect_verdicts=True)})
        >>> policies.of("acme").protect_verdicts
        True
        >>> policies.of("unheard of") == policies.of(None) == policies.default
        True
    """

    default: Policy = PRESETS["provider"]
    providers: Mapping[str, Policy] = field(default_factory=dict)
    credit: bool = True
    """Whether all credit is ours to tell. Otherwise the platform sets and removes what follows from our events."""

    def of(self, provider: str | None) -> Policy:
        """Return the policy of a provider, which may be None when the course names none."""
        return self.default if provider is None else self.providers.get(provider, self.default)

    def without_credit(self) -> "Policies":
        """Return the same policies for a platform that sets credit itself.

        The credit of a status for which the platform has no event stays ours.
        """
        return Policies(
            _without_credit(self.default),
            {name: _without_credit(policy) for name, policy in self.providers.items()},
            credit=False,
        )


_WITHOUT_EVENT = frozenset({Status.DECLINED, Status.NOT_REVIEWED})
"""The statuses with credit of which an Open edX platform hears nothing."""


def _without_credit(policy: Policy) -> Policy:
    return replace(policy, credit_on=policy.credit_on & _WITHOUT_EVENT)


def load_policies(path: Path | None) -> Policies:
    """Read the file of policies; without one, everybody has the `provider` preset.

    Parameters:
        path: a TOML file (docs/rules.md, "Policies"), or None.

    Raises:
        ConfigurationError: the file cannot be read, or a setting is wrong; names the file, the key and what
            is allowed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "policies.toml")
        ...     _ = file.write_text('[providers.acme]\\ncascade_on = ["declined"]\\n')
        ...     policies = load_policies(file)
        >>> sorted(map(str, policies.of("acme").cascade_on))
        ['declined']
        >>> sorted(map(str, policies.default.cascade_on))
        ['declined', 'rejected']
    """
    if path is None:
        return Policies()
    document = read_toml(path, "policies file")
    unknown = sorted(set(document) - {"default", "providers"})
    if unknown:
        raise ConfigurationError(
            f"policies file {path}: {unknown[0]}: is not allowed; tables are [default] and [providers.NAME]"
        )
    default = _read(path, "default", document.get("default", {}), PRESETS["provider"])
    providers = document.get("providers", {})
    if not isinstance(providers, dict):
        raise ConfigurationError(f"policies file {path}: providers: must be tables [providers.NAME]")
    return Policies(
        default,
        {name: _read(path, f"providers.{name}", table, default) for name, table in providers.items()},
    )


def _read(path: Path, name: str, table: Any, base: Policy) -> Policy:
    if not isinstance(table, dict):
        raise ConfigurationError(f"policies file {path}: {name}: must be a table [{name}]")
    try:
        return policy_from(table, base)
    except PolicyError as error:
        raise ConfigurationError(f"policies file {path}: {name}.{error.key}: {error.allowed}") from None
