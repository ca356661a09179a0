"""The files of `deploy/` say what the Procfile and the settings say. `tests/install` has the linters."""

import re
import shlex
import tomllib

import pytest

from invigilator.local.procfile import read_procfile
from tests import deployment
from tests.deployment import COMMON, DEPLOY, DOCKERFILE, SYSTEMD
from worker.settings import PREFIX, Settings

ROOT = DEPLOY.parent
PROCFILE = {role: shlex.split(command) for role, command in read_procfile().items()}
ALONE_IN_ITS_CONTAINER = {"--address=127.0.0.1": "--address=0.0.0.0"}
"""Flower listens on every address of its container. Its port is published on the machine's loopback only."""
STOP_S = 75


def test_the_units_run_what_the_procfile_says() -> None:
    assert deployment.unit_commands() == PROCFILE


def test_the_services_run_what_the_procfile_says() -> None:
    expected = {
        role: [ALONE_IN_ITS_CONTAINER.get(word, word) for word in command]
        for role, command in PROCFILE.items()
    }
    assert deployment.service_commands() == expected


def test_the_pods_run_what_the_procfile_says() -> None:
    assert deployment.pod_commands() == PROCFILE


def test_a_process_has_the_time_to_record_its_last_result_before_it_is_killed() -> None:
    common = deployment.unit(COMMON)["Service"]
    assert Settings.model_fields["lease_s"].default < STOP_S
    assert int(common["TimeoutStopSec"]) == STOP_S
    assert {deployment.services()[role]["stop_grace_period"] for role in PROCFILE} == {f"{STOP_S}s"}
    assert deployment.common_pod()["terminationGracePeriodSeconds"] == STOP_S


@pytest.mark.parametrize("role", PROCFILE)
def test_every_unit_ends_with_the_target_and_has_an_instance_by_default(role: str) -> None:
    unit = deployment.unit(SYSTEMD / f"invigilator-{role}@.service")
    assert unit["Unit"]["PartOf"] == "invigilator.target"
    assert dict(unit["Install"]) == {"WantedBy": "invigilator.target", "DefaultInstance": "1"}
    assert list(unit["Service"]) == ["ExecStart"]  # the rest is in the file that all have in common


def test_nothing_runs_as_root_or_may_become_it() -> None:
    common, pod = deployment.unit(COMMON)["Service"], deployment.common_pod()
    assert (common["User"], common["NoNewPrivileges"], common["CapabilityBoundingSet"]) == (
        "invigilator",
        "yes",
        "",
    )
    [*_, user] = re.findall(r"^USER (\d+):\d+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert int(user) > 0
    for role in (*PROCFILE, "migrate"):
        service = deployment.services()[role]
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        assert service["security_opt"] == ["no-new-privileges:true"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_the_roles_that_need_an_extra_have_the_image_that_has_it() -> None:
    services = deployment.services()
    images = {role: services[role]["image"] for role in PROCFILE}
    pods = {
        manifest["metadata"]["labels"]["app.kubernetes.io/component"]: manifest["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]
        for manifest in deployment.manifests("Deployment")
    }
    assert images == pods
    assert {role for role, image in images.items() if image != "invigilator"} == {"flower", "web"}
    assert services["web"]["build"]["args"]["EXTRAS"] == "[web,flower]"
    assert "args" not in services["commands"]["build"]
    assert 'ARG EXTRAS=""\n' in DOCKERFILE.read_text()


def test_the_image_is_built_from_everything_that_the_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    packages = {pattern.rstrip("*") for pattern in setuptools["packages"]["find"]["include"]}
    modules = {f"{module}.py" for module in setuptools["py-modules"]}
    texts = {project["project"]["readme"], *project["project"]["license-files"]}
    needed = packages | modules | texts | {"pyproject.toml", "constraints.txt", "Procfile"}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == needed
    # And Docker is told to leave out everything else
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == needed


def test_every_setting_that_the_files_name_is_one() -> None:
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    files = [file for file in DEPLOY.rglob("*") if file.is_file()]
    named = {name for file in files for name in re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*\b", file.read_text())}
    assert "INVIGILATOR_LMS_URL" in named
    assert named - settings == set()
