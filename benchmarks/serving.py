"""An HTTP server with byte ranges, in a process of its own, that counts what it has sent: for the benchmarks."""

import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path


@dataclass(frozen=True)
class Served:
    """Address of a folder, and how much of it has been sent."""

    url: str
    sent: Synchronized
    requests: Synchronized


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.server.root / self.path.lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        size, asked = path.stat().st_size, re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first, last = (int(asked[1]), min(int(asked[2] or size), size - 1)) if asked else (0, size - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        with self.server.requests.get_lock():
            self.server.requests.value += 1
        if body:
            with path.open("rb") as file, suppress(ConnectionError):
                file.seek(first)
                self.wfile.write(file.read(last + 1 - first))
                with self.server.sent.get_lock():
                    self.server.sent.value += last + 1 - first


def _serve(root: Path, port: Synchronized, sent: Synchronized, requests: Synchronized) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.root, server.sent, server.requests = root, sent, requests
    port.value = server.server_address[1]
    server.serve_forever()


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """Serve a folder at ``url`` until the end of the block."""
    context = multiprocessing.get_context("spawn")
    port, sent, requests = (context.Value("q", 0) for _ in range(3))
    process = context.Process(target=_serve, args=(root, port, sent, requests), daemon=True)
    process.start()
    try:
        while not port.value:
            process.join(0.05)
            if process.exitcode is not None:
                raise RuntimeError("the server did not start")
        yield Served(f"http://127.0.0.1:{port.value}", sent, requests)
    finally:
        process.terminate()
        process.join()
