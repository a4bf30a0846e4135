"""An HTTP server with byte ranges and faults, for tests: ``GET /<mode>/<path>``.

Modes: ``ok``; ``404``; ``truncated`` (the file ends after 60 %); ``500-once`` (the first answer per range is an error).
"""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        _, mode, relative = self.path.split("?")[0].split("/", 2)
        path = self.server.root / relative
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        if mode == "404" or not path.is_file():
            return self._send(404, b"gone", body=body)
        key = (self.path, self.headers.get("Range"))
        if mode == "500-once" and body and key not in self.server.seen:
            self.server.seen.add(key)
            return self._send(500, b"try again", body=body)
        content = path.read_bytes()
        if mode == "truncated":
            content = content[: len(content) * 6 // 10]
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self._send(200, content, body=body)
        first = int(asked[1])
        last = min(int(asked[2] or len(content) - 1), len(content) - 1)
        if first >= len(content):
            return self._send(416, b"", body=body)
        extra = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._send(206, content[first : last + 1], body=body, extra=extra)

    def _send(self, status, content, *, body, extra=None):
        self.send_response(status)
        for name, value in {"Accept-Ranges": "bytes", "Content-Length": len(content), **(extra or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            with contextlib.suppress(OSError):
                self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = Path(root)
        self.requests = []
        self.seen = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serve(root):
    """A running server of a folder; ``.url`` and ``.requests`` tell where it is and what it was asked."""
    server = _Server(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
