"""A help desk of the tests: an HTTP server that keeps what it is sent and answers as the test says."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
Reply = Callable[[dict[str, Any]], tuple[int, bytes]]


@dataclass
class Call:
    """What the help desk was sent."""

    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Desk:
    """A help desk that answers as the test says. `reply` runs in a thread of its own."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    reply: Reply = lambda said: (200, b"")

    def told(self) -> list[tuple[str, str]]:
        return [(call.said["data"]["case_id"], call.said["type"]) for call in self.calls]


@contextmanager
def listening(desk: Desk, certificate: Path | None = None) -> Iterator[Desk]:
    """The desk as a server; over TLS with cert.pem and key.pem of the folder `certificate`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            desk.calls.append(Call({name.lower(): value for name, value in self.headers.items()}, body))
            status, answer = desk.reply(json.loads(body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"{desk.url}/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Tests read the calls themselves."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Whoever waits no longer has hung up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        desk.url = f"http://127.0.0.1:{server.server_port}/cases"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
            desk.url = f"https://localhost:{server.server_port}/cases"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield desk
        finally:
            server.shutdown()
            thread.join()
