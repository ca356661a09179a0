"""Tells what it finds, and ends when it is told, or with the status that is its argument."""

import atexit
import json
import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    found = {
        "arguments": sys.argv[1:],
        "folder": str(Path.cwd()),
        "input": sys.stdin.read(),
        "leads": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "variables": dict(os.environ),
    }
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stderr.write("an error\n")
    atexit.register(sys.stdout.write, "the end\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    if sys.argv[1] == "stay":
        time.sleep(600)
    sys.exit(int(sys.argv[1]))
