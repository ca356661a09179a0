"""`invigilator up` with another Procfile and no migrations: `python -m … PROCFILE`."""

import sys
from pathlib import Path

from events.errors import InvigilatorError
from invigilator.local.up import System
from worker.settings import load

if __name__ == "__main__":
    try:
        System(load(), procfile=Path(sys.argv[1]), migrate=lambda url: None).run()
    except InvigilatorError as error:
        sys.exit(str(error))
