"""Tells what it finds, and ends when it is told, or in the way that is its argument: with a status, say."""

import atexit
import json
import os
import signal
import sys
import threading
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stderr.write("an error\n")
    atexit.register(sys.stdout.write, "the end\n")
    match sys.argv[1]:
        case "stay":
            time.sleep(600)
        case "thread":
            threading.Timer(0.1, sys.stdout.write, ["a thread\n"]).start()
            sys.exit()
        case "text":
            sys.exit("a last word")
        case "error":
            raise ValueError("a mistake")
        case status:
            sys.exit(int(status))
