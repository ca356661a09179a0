"""Whom the processes under test trust: one authority, which signed nothing and whose key nobody has.

To read the system's hundred authorities takes 0.05 s of CPU time for each TLS context, and each worker has two.
"""

import os
from pathlib import Path

FEW_AUTHORITIES = {
    "SSL_CERT_FILE": str(Path(__file__).parent / "data" / "authority.pem"),
    "SSL_CERT_DIR": os.devnull,
}
"""Variables of a process."""
