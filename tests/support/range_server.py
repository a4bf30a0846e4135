"""An HTTP server with byte ranges and faults, for tests: ``GET /<mode>/<path>``.

A mode is ``ok`` or the name of a fault. It may end in ``-once`` (every range of every address fails the first time and
is right afterwards), ``-first`` (the first request for an address fails) or ``-twice``. ``data-`` in front spares the
head of the file (its first `HEAD` bytes, what GDAL opens with), ``search-`` all but the search of an API.

==================  ===================================================================================================
404, 403, 500       that status
503                 that status with ``Retry-After: 1``
expired             403 with the XML of Azure unless the address ends in ``sig=good``
stall               no answer until the server ends
cut                 half of the body, then the connection is closed
truncated           the file ends after 60 %
empty               the file has no bytes
whole               no ranges: 200 and all of the file to any request
long, short         ``Content-Length`` is 100 bytes more, or less, than the body
wrong-total         ``Content-Range`` states half of the size of the file
wrong-range         ``Content-Range`` and body are those of 1000 bytes further on
garbage             200 and a page of HTML
==================  ===================================================================================================

`_Server.mode` set to a fault overrules what the address says, so that one address can fail now and not later.
"""

import contextlib
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.request import Request, urlopen

#: What GDAL fetches when it opens a file.
HEAD = 16384

_EXPIRED = b"""<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to
authenticate the request.</Message><AuthenticationErrorDetail>Signature not valid in the specified time frame
</AuthenticationErrorDetail></Error>"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *args):
        pass

    def handle(self):
        # A client that gives up closes its end: no news.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def do_POST(self):
        self._answer(body=True, sent=self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, *, body, sent=None):
        target = self.server.redirects.get(self.path)
        if target:
            return self._send(302, b"", body=body, extra={"Location": target})
        _, mode, relative = self.path.split("?")[0].split("/", 2)
        path = self.server.root / relative
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        fault = self._fault(self.server.mode or mode, body=body, first=int(asked[1]) if asked else 0)
        if fault == "stall":
            self.server.ended.wait()
            self.close_connection = True
        elif fault in ("403", "500"):
            self._send(int(fault), b"no", body=body)
        elif fault == "503":
            self._send(503, b"busy", body=body, extra={"Retry-After": "1"})
        elif fault == "expired":
            self._send(403, _EXPIRED, body=body, extra={"Content-Type": "application/xml"})
        elif fault == "garbage":
            self._send(200, b"<html>Welcome to the hotel's network</html>", body=body)
        elif fault == "404" or not (self.server.upstream or path.is_file()):
            self._send(404, b"gone", body=body)
        elif self.server.upstream:
            self._send_on(mode, relative, sent, fault)
        else:
            self._send_file(path.read_bytes(), asked, fault, body=body)

    def _fault(self, mode, *, body, first):
        """The fault to show for this request, or ``ok``."""
        if mode == "expired" and self.path.endswith("sig=good"):
            return "ok"
        if mode.startswith("data-"):
            mode = mode.removeprefix("data-")
            if first < HEAD:
                return "ok"
        if mode.startswith("search-"):
            mode = mode.removeprefix("search-")
            if not self.path.split("?")[0].endswith("/search"):
                return "ok"
        how_often = ""
        if mode.endswith(("-once", "-first", "-twice")):
            mode, _, how_often = mode.rpartition("-")
        if how_often:
            key = (self.path, self.headers.get("Range") if how_often == "once" else "any")
            if not (body or mode.isdigit()) or self.server.count(key) > {"once": 1, "first": 1, "twice": 2}[how_often]:
                return "ok"
        return mode

    def _send_on(self, mode, relative, sent, fault):
        """The answer of the server behind this one, with its links turned to this one."""
        query = "?" + self.path.split("?")[1] if "?" in self.path else ""
        request = Request(f"{self.server.upstream}/{relative}{query}", sent, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            here = f"{self.server.url}/{mode}".encode()
            self._send(
                answer.status, answer.read().replace(self.server.upstream.encode(), here), body=True, fault=fault
            )

    def _send_file(self, content, asked, fault, *, body):
        if fault == "truncated":
            content = content[: len(content) * 6 // 10]
        if fault == "empty":
            content = b""
        if not asked or fault == "whole":
            return self._send(200, content, body=body, fault=fault)
        first = int(asked[1]) + (1000 if fault == "wrong-range" else 0)
        last = min(int(asked[2] or len(content) - 1), len(content) - 1)
        if first >= len(content):
            return self._send(416, b"", body=body)
        total = len(content) // 2 if fault == "wrong-total" else len(content)
        extra = {"Content-Range": f"bytes {first}-{last}/{total}"}
        return self._send(206, content[first : last + 1], body=body, extra=extra, fault=fault)

    def _send(self, status, content, *, body, extra=None, fault="ok"):
        stated = max(0, len(content) + {"long": 100, "short": -100}.get(fault, 0))
        self.send_response(status)
        for name, value in {"Accept-Ranges": "bytes", "Content-Length": stated, **(extra or {})}.items():
            if fault != "whole" or name != "Accept-Ranges":
                self.send_header(name, str(value))
        self.end_headers()
        self.close_connection = self.close_connection or fault in ("cut", "long", "short")
        if body:
            with contextlib.suppress(OSError):
                self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: Ports of this process's servers. None is taken twice: GDAL keeps what an address answered to an earlier test.
    ports: ClassVar[set[int]] = set()

    def __init__(self, root, upstream=""):
        super().__init__(("127.0.0.1", 0), _Handler)
        while self.server_port in self.ports:
            self.server_close()
            super().__init__(("127.0.0.1", 0), _Handler)
        self.ports.add(self.server_port)
        self.root = Path(root)
        self.upstream = upstream
        self.requests = []
        self.mode = ""
        #: Path -> where it leads to.
        self.redirects = {}
        self.ended = threading.Event()
        self._seen = Counter()
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def seen(self):
        """What was answered with a fault that passes."""
        return self._seen

    def count(self, key):
        """How often this was asked for, this time included."""
        with self._lock:
            self._seen[key] += 1
            return self._seen[key]


@contextlib.contextmanager
def serve(root, upstream=""):
    """A running server of a folder; ``.url`` and ``.requests`` tell where it is and what it was asked.

    With ``upstream``, the address of another server, it passes on what that one answers, if no fault comes first.
    """
    server = _Server(root, upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
