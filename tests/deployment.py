"""The files of `deploy/`, read: which commands they run, and how."""

import shlex
from collections.abc import Iterator
from configparser import RawConfigParser
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
SYSTEMD = DEPLOY / "systemd"
COMMON = SYSTEMD / "invigilator-@.service.d" / "common.conf"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = DEPLOY / "Dockerfile"
PROGRAMS = "/opt/invigilator/bin/"
"""Where the units and the image have the programs."""


def unit(file: Path) -> RawConfigParser:
    """Read a unit of systemd. Of a key that comes twice, the last value is kept."""
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the way that its documentation names
    parser.read_string(file.read_text(encoding="utf-8"))
    return parser


def unit_commands() -> dict[str, list[str]]:
    """By role, what its unit runs. systemd has a meaning for %, which is written twice where it is meant."""
    return {
        _role(file.name.removesuffix("@.service")): shlex.split(
            unit(file)["Service"]["ExecStart"].removeprefix(PROGRAMS).replace("%%", "%")
        )
        for file in SYSTEMD.glob("invigilator-*@.service")
    }


@cache
def services() -> dict[str, Any]:
    """The services of the compose file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def service_commands() -> dict[str, list[str]]:
    """By role, what its service runs."""
    return {
        name: shlex.split(service["command"])
        for name, service in services().items()
        if service["image"].startswith("invigilator") and name != "migrate"
    }


def manifests(kind: str) -> Iterator[dict[str, Any]]:
    """The manifests of a kind, before kustomize has added what all have in common."""
    for file in sorted(KUBERNETES.glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if manifest["kind"] == kind:
                yield manifest


def pod_commands() -> dict[str, list[str]]:
    """By role, what its pods run."""
    return {
        _role(manifest["metadata"]["name"]): manifest["spec"]["template"]["spec"]["containers"][0]["command"]
        for manifest in manifests("Deployment")
    }


def common_pod() -> dict[str, Any]:
    """What kustomize adds to every pod."""
    patch = yaml.safe_load((KUBERNETES / "common/pod.yaml").read_text(encoding="utf-8"))
    pod: dict[str, Any] = patch["spec"]["template"]["spec"]
    return pod


def _role(name: str) -> str:
    return name.removeprefix("invigilator-")
