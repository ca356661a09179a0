"""The examples in docstrings and documents run, and every entry point has one."""

import asyncio
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("events", "db", "worker", "invigilator")

ENTRY_POINTS = (
    ("events.publisher", "Publisher"),
    ("events.publisher", "AsyncPublisher"),
    ("events.client", "Client"),
    ("events.webhooks", "verify_webhook"),
    ("worker.rules.decisions", "decide"),
    ("worker.policies", "load_policies"),
    ("worker.lms.ports", "CreditService"),
    ("worker.lms.ports", "InstructorService"),
    ("worker.lms.ports", "Mailer"),
    ("worker.kinds", ""),
)
"""What a newcomer calls, implements or copies: a module, and a name in it; no name: anything in the module."""

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md", "docs/operate.md")
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block that runs alone. Any other one says what it is: ```python fragment"""
KINDS = {
    "",
    " fragment",  # it cannot run
    " api",  # `tests/acceptance/test_client.py` runs it
    " django",  # `tests/integration/django/test_documented.py` runs it
}

BROKER = re.compile(r'"redis://(…|localhost)"')
"""What an example says where its reader has a broker. Here it is kombu's, in memory."""


def runnable(code: str) -> str:
    return BROKER.sub('"memory://"', code)


def modules_with_examples() -> Iterator[str]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if ">>> " in file.read_text():
                yield ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


def blocks() -> Iterator[Any]:
    for name in DOCUMENTS:
        for number, block in enumerate(FENCE.finditer((ROOT / name).read_text()), 1):
            yield pytest.param(block["code"], id=f"{name}-{number}")


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_the_examples_of_a_module_run(name: str) -> None:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.REPORT_NDIFF)
    report: list[str] = []
    for test in examples_of(importlib.import_module(name)):
        for example in test.examples:
            example.source = runnable(example.source)
        runner.run(test, out=report.append)
    assert not report, "".join(report)
    assert runner.summarize(verbose=False).attempted > 0


@pytest.mark.parametrize(("module", "name"), ENTRY_POINTS)
def test_every_entry_point_has_an_example(module: str, name: str) -> None:
    full = f"{module}.{name}".removesuffix(".")
    found = [test.name for test in examples_of(importlib.import_module(module))]
    assert any(f"{one}.".startswith(f"{full}.") for one in found), f"{full} has no example in its docstring"


@pytest.mark.parametrize("code", list(blocks()))
def test_the_examples_of_a_document_run(code: str) -> None:
    namespace: dict[str, Any] = {"__name__": "__example__"}
    exec(runnable(code), namespace)
    for function in filter(inspect.iscoroutinefunction, list(namespace.values())):
        asyncio.run(function())


def test_every_block_says_who_runs_it() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "events").glob("*.md")]
    assert {
        kind
        for document in documents
        for kind in re.findall(r"^```python(.*)$", document.read_text(), re.MULTILINE)
    } <= KINDS
