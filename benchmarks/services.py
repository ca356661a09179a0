"""A driver with an LMS and a mail server that take a fixed time for each call and each mail.

Its first line has their addresses, `lms_url` and `smtp_url`. It takes no requests. One thread serves both, and
a call costs well under a millisecond of CPU.
"""

import argparse
import asyncio
import json
import sys
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

from benchmarks import driver_protocol

HOST = "127.0.0.1"
BODY = json.dumps({"course_name": "A course"}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
MAIL_ANSWERS = {b"EHLO": b"250 localhost", b"DATA": b"354 go on", b"QUIT": b"221 bye"}


class Services:
    """Both servers.

    Parameters:
        delay_s: seconds that each HTTP call takes, and each mail after it has arrived.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def http(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one HTTP connection, which is kept alive."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                await asyncio.sleep(self._delay_s)
                writer.write(ANSWER)
                await writer.drain()
        writer.close()

    async def smtp(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one SMTP connection."""
        writer.write(b"220 localhost\r\n")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                word = (await reader.readuntil(b"\r\n"))[:4].upper()
                writer.write(MAIL_ANSWERS.get(word, b"250 OK") + b"\r\n")
                if word == b"DATA":
                    await reader.readuntil(b"\r\n.\r\n")
                    await asyncio.sleep(self._delay_s)
                    writer.write(b"250 OK\r\n")
                if word == b"QUIT":
                    break
        writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def serve(delay_s: float) -> None:
    """Serve until the end of standard input."""
    services = Services(delay_s)
    lms = await asyncio.start_server(services.http, HOST, 0, backlog=1024)
    smtp = await asyncio.start_server(services.smtp, HOST, 0, backlog=1024)
    ports = [server.sockets[0].getsockname()[1] for server in (lms, smtp)]
    urls = {"lms_url": f"http://{HOST}:{ports[0]}", "smtp_url": f"smtp://{HOST}:{ports[1]}"}
    driver_protocol.write({"ready": True, **urls})
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.services")
    parser.add_argument("--service-ms", type=float, required=True)
    asyncio.run(serve(parser.parse_args().service_ms / 1000))


if __name__ == "__main__":
    main()
