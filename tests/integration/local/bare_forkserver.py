"""A fork server that imports nothing. Its programs are modules."""

import runpy
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from invigilator.local.forkserver import Program, prepare, serve


def become(order: Mapping[str, Any]) -> NoReturn:
    program = Program(**order)
    prepare(program)
    runpy.run_module(program.arguments[0], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    serve((), become)
