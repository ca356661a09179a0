"""What the documents say can be checked: links, paths, names, commands, and the drawing of the states."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import click
import pytest
import yaml

from db.states import EffectState
from events.commands import COMMAND_TYPES
from events.event_types import EVENT_TYPES
from invigilator.cli.main import invigilator
from invigilator.web.console.pages import DOORS
from worker.kinds import EffectKind, task_name

ROOT = Path(__file__).parents[2]
ROOMS = ("benchmarks", "db", "deploy", "docs", "events", "invigilator", "tests", "worker")
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/decisions").glob("*.md")),
]
HISTORY = ("CHANGELOG.md",)  # tells of names that are gone
TOLD = [file for file in DOCUMENTS if file.name not in HISTORY]
SOURCES = [file for room in ROOMS for file in (ROOT / room).rglob("*.py") if ".venv" not in file.parts]

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(ROOMS)})/[\w./-]*\w\.(?:py|md|svg|json|jsonl|toml|txt)\b")
DOTTED = re.compile(r"`((?:db|events|worker)(?:\.\w+)+)`")
TARGET = re.compile(r"\bmake ([a-z]+(?:-[a-z]+)*)\b")
COMMAND = re.compile(r"(?:^[$#] |^|`|bin/)invigilator ([a-z][^`\n|#<;&)]*)", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def code_in(document: Path) -> str:
    return "\n".join(CODE.findall(document.read_text()))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> Iterator[str]:
    for target in LINK.findall(document.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = document.parent / path if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(broken_links(document)) == []


@pytest.mark.parametrize("document", TOLD, ids=name_of)
def test_every_path_in_a_document_exists(document: Path) -> None:
    assert [path for path in PATH.findall(document.read_text()) if not (ROOT / path).exists()] == []


def test_every_path_in_the_code_exists() -> None:
    missing = {
        (name_of(file), path)
        for file in SOURCES
        for path in PATH.findall(file.read_text())
        if not (ROOT / path).exists() and "tests/install" not in name_of(file)
    }
    assert missing == set()


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module or package, or a word in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.exists():
            return all(re.search(rf"\b{name}\b", file.read_text()) for name in parts[length:])
    return False


@pytest.mark.parametrize("document", TOLD, ids=name_of)
def test_every_dotted_name_in_a_document_is_there(document: Path) -> None:
    assert [name for name in DOTTED.findall(document.read_text()) if not is_there(name)] == []


def test_every_dotted_name_in_the_code_is_there() -> None:
    missing = {
        (name_of(file), name)
        for file in SOURCES
        for name in DOTTED.findall(file.read_text())
        if not is_there(name)
    }
    assert missing == set()


@pytest.mark.parametrize("document", TOLD, ids=name_of)
def test_every_make_target_is_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall(code_in(document))) <= targets


def unknown_words(line: str) -> Iterator[str]:
    """The command or options of a line that the command line does not know."""
    command: click.Command = invigilator
    words = line.split()
    while words and isinstance(command, click.Group):
        word = words.pop(0)
        if word not in command.commands:
            yield f"{command.name} {word}"
            return
        command = command.commands[word]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in options:
            yield f"{command.name} {word}"


@pytest.mark.parametrize("document", TOLD, ids=name_of)
def test_every_command_is_there_with_its_options(document: Path) -> None:
    lines = COMMAND.findall(code_in(document))
    assert {word for line in lines for word in unknown_words(line)} == set()


@pytest.mark.parametrize("file", ["deploy/compose.yaml", "deploy/kubernetes/common/readiness.yaml"])
def test_every_probe_asks_what_the_command_line_answers(file: str) -> None:
    """An option that is unknown ends with exit status 2, which a probe takes for "nothing works"."""
    [line] = re.findall(r"['\"]invigilator (.+?) \|\|", (ROOT / file).read_text())
    assert list(unknown_words(line)) == []


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [int(file.name[:4]) for file in sorted((ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("kind", EffectKind)
def test_the_contract_has_a_row_for_each_kind(kind: EffectKind) -> None:
    row = f"| `{kind}` | `{task_name(kind)}` | `{kind.entry.queue}` |"
    assert row in (ROOT / "docs/contract.md").read_text()


@pytest.mark.parametrize("command_type", COMMAND_TYPES)
def test_the_contract_tells_of_each_command_type(command_type: str) -> None:
    assert f"`{command_type}`" in (ROOT / "docs/contract.md").read_text()


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_contract_tells_of_each_event_type(event_type: str) -> None:
    assert f"`{event_type}`" in (ROOT / "docs/contract.md").read_text()


# --- the layers ---------------------------------------------------------------------------------------------


def test_the_layers_of_the_worker_are_those_of_the_linter() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == ["worker"]]
    rows = re.findall(
        r"^\| (`\w+`(?: · `\w+`)*) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    assert [row.replace("`", "").replace(" · ", " : ") for row in rows] == layers


# --- the glossary ------------------------------------------------------------------------------------------


def places() -> Iterator[tuple[str, str]]:
    """Each name in the glossary's last column, with its file."""
    glossary = ROOT / "docs/glossary.md"
    for row in re.findall(r"^\| \*\*.*\|$", glossary.read_text(), re.MULTILINE):
        file = None
        for link, name in re.findall(r"\]\((\S+)\)|`([\w.]+)`", row.split("|")[-2]):
            if link:
                file = glossary.parent / link
            elif file is not None:
                yield name_of(file.resolve()), name


def test_every_name_in_the_glossary_is_in_its_file() -> None:
    found = list(places())
    assert found
    assert [(file, name) for file, name in found if name not in (ROOT / file).read_text()] == []


# --- the alerts --------------------------------------------------------------------------------------------

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
SECTIONS = dict(
    re.findall(
        r"^### (Invigilator\w+)\n(.*?)(?=^##)",
        (ROOT / "docs/operate.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


@pytest.mark.skipif(not ALERTS.exists(), reason="there are no rules for alerts")
def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert sorted(SECTIONS) == sorted(alerts)


def test_each_alert_links_to_its_section_and_to_a_page_of_the_console() -> None:
    operate = (ROOT / "docs/operate.md").read_text()
    pages = {f"/console{door.path}" for door in DOORS if door.method == "GET"}
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            runbook = urlsplit(rule["annotations"]["runbook_url"])
            console = urlsplit(rule["annotations"]["console_url"])
            assert (runbook.path, runbook.fragment) == ("/operate.md", rule["alert"].lower())
            assert console.path in pages
            # The bases are those that the page says how to replace
            for base in (runbook, console):
                assert f"s#{base.scheme}://{base.netloc}#" in operate


@pytest.mark.parametrize("alert", SECTIONS)
def test_the_section_of_an_alert_has_its_cause_what_to_check_and_how_to_mend_it(alert: str) -> None:
    steps = " ".join(re.findall(r"^- \*\*(.*?)[.]\*\*", SECTIONS[alert], re.MULTILINE)).lower()
    assert re.sub(r"\W+and\W+", " ", steps) == "cause check fix"


# --- the states of an effect -------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"
DRAWING = ElementTree.parse(ROOT / "docs/effect-states.svg").getroot()


def test_the_drawing_has_every_state() -> None:
    drawn = {text.text for text in DRAWING.iter(f"{SVG}text") if text.get("class") == "name"}
    assert drawn == set(EffectState)


def changes() -> set[tuple[str, str, str]]:
    """The table of the architecture: from which state to which, and who does it."""
    table = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (\w+) → (\w+) \| .* \| ([\w, ]+) \| [^|]*\|$", table, re.MULTILINE)
    return {(before, after, one) for before, after, who in rows for one in who.split(", ")}


def test_the_drawing_has_the_arrows_of_the_table() -> None:
    drawn = {
        (*path.get("id", "").split("-")[:2], path.get("class"))
        for path in DRAWING.iter(f"{SVG}path")
        if path.get("id")
    }
    assert drawn == changes()


@pytest.mark.parametrize("state", EffectState)
def test_the_table_says_what_the_states_say(state: EffectState) -> None:
    """Beside each state stands what comes next."""
    source = (ROOT / "db/states.py").read_text()
    comment = re.findall(rf'^    {state.name} = "{state}"  # (.*)$', source, re.MULTILINE)[0]
    told = set(re.findall(r"\w+", comment.partition("Next:")[2])) & set(EffectState)
    assert told == {after for before, after, _ in changes() if before == state != after}
