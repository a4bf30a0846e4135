"""STAC documents from disk and over HTTP, within bounds; and where their links may lead.

Who publishes a catalogue decides what its documents say, and so what would be read next. A document from the network
leads to addresses of the network only: never to a file of this disk, nor to a name that GDAL resolves (``/vsi...``). An
answer ends by itself, or is ended by `Limits`.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pystac
from pystac.link import Link
from pystac.stac_io import DefaultStacIO
from pystac.utils import make_absolute_href
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from eosr.errors import SourceError

Answer = TypeVar("Answer")

#: What a catalogue or an API may take before the first byte, and between two, unless ``timeout=`` says otherwise [s].
TIMEOUT: Final = 60.0
#: Longest time of one answer as a whole, retries included, in time-outs: a server may also send a byte now and then.
_WHOLE: Final = 3
#: What is asked again: once where nothing came, three times (after 0, 1 and 2 s) where the server is busy or fails.
#: POST too: a search changes nothing. Retry-After is not obeyed, because it may be hours.
_RETRIES: Final = Retry(
    total=3, connect=1, read=1, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None, backoff_factor=0.5,
    respect_retry_after_header=False, raise_on_status=False,
)  # fmt: skip
#: Where documents from the network may say that pixels are.
_REMOTE: Final = ("http", "https", "s3", "gs", "az")
_WEB: Final = ("http", "https")
#: Levels of a JSON document: an item has about ten.
_LEVELS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one search may fetch before it is ended with an error; larger than any sensible search.

    Parameters
    ----------
    requests : int
        Documents and pages.
    items : int
        Items.
    depth : int
        Catalogues inside of each other.
    megabytes : float
        Size of one document, unpacked [MB].
    seconds : float
        Time of all requests together [s].

    Raises
    ------
    SourceError
        If one is no positive number.
    """

    requests: int = 5000
    items: int = 100_000
    depth: int = 20
    megabytes: float = 64
    seconds: float = 3600

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise SourceError(
                    f"{name}={value!r} is no limit. Use e.g. eosr.open.Limits({name}={getattr(Limits, name)})."
                )

    def check(self, name: str, value: float, what: str) -> None:
        """Stop where a limit is passed: ``what`` is the sentence about it."""
        limit = getattr(self, name)
        if value > limit:
            raise SourceError(
                f"{what}. Narrow the search, or allow more: limits=eosr.open.Limits({name}={2 * math.ceil(limit)})."
            )


class Web(StacApiIO):
    """How documents are fetched: with time-outs and retries, of which pystac has none, and within `Limits`."""

    def __init__(self, timeout: float = TIMEOUT, limits: Limits | None = None) -> None:
        check_timeout(timeout)
        super().__init__(timeout=timeout, max_retries=None)
        self.timeout: float
        self.limits = limits or Limits()
        self._begin = time.monotonic()
        self._count = 0
        self._items = 0
        self.session.max_redirects = 10
        for scheme in _WEB:
            self.session.mount(f"{scheme}://", _Bounded(self.limits, _WHOLE * timeout))

    def found(self, count: int, where: str) -> None:
        """Count items that were found."""
        self._items += count
        self.limits.check("items", self._items, f"{where} gives more than {self.limits.items} items")

    def request(self, href: str, *args: Any, **kwargs: Any) -> str:
        """Text of one answer."""
        if urlsplit(href).scheme.lower() not in _WEB:
            raise SourceError(_astray(href, "a link of the server"))
        self._count += 1
        here, limits = href.partition("?")[0], self.limits
        limits.check("requests", self._count, f"more than {limits.requests} documents are asked for, the last {here}")
        taken = time.monotonic() - self._begin
        limits.check("seconds", taken, f"the search takes more than {limits.seconds:g} s, at {here}")
        whole: float = min(_WHOLE * self.timeout, limits.seconds - taken)
        return _within(whole, lambda: super(Web, self).request(href, *args, **kwargs))

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Text of a document of the network."""
        # pystac-client reads a file of this disk, where a server says so.
        if isinstance(source, Link):
            return str(super().read_text(source, *args, **kwargs))
        return self.request(str(source), *args, **kwargs)

    def get_pages(self, url: str, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Pages of a search, until one leads back, or brings nothing new."""
        asked, seen = set[str](), set[str]()
        for page in super().get_pages(url, *args, **kwargs):
            check_depth(page, url)
            new = {json.dumps([one.get("collection"), one.get("id")]) for one in page.get("features") or ()} - seen
            following = json.dumps([link for link in links_of(page) if link.get("rel") == "next"], sort_keys=True)
            if following in asked or (seen and not new):
                raise SourceError(
                    f"the pages of {url} never end: page {len(asked) + 1} {'leads back' if new else 'repeats items'}. "
                    "Narrow the search to what fits on one page, or tell the operator of the server."
                )
            asked.add(following)
            seen |= new
            yield page


class _Bounded(HTTPAdapter):
    """Fetches bodies within bounds, also those of redirects."""

    def __init__(self, limits: Limits, seconds: float) -> None:
        super().__init__(max_retries=_RETRIES)
        self._limits = limits
        self._seconds = seconds

    def send(self, request: Any, stream: bool = False, **kwargs: Any) -> Any:  # type: ignore[override]  # by keyword
        """One answer with its body."""
        begin = time.monotonic()
        response = super().send(request, stream=True, **kwargs)
        body = bytearray()
        try:
            for piece in response.raw.stream(2**16, decode_content=True):
                body += piece
                size = self._limits.megabytes
                self._limits.check(
                    "megabytes", len(body) / 1e6, f"the answer of {_bare(request.url)} is over {size} MB"
                )
                if time.monotonic() - begin > self._seconds:
                    raise TimeoutError("timed out")
            # So that requests takes it for read.
            response._content, response._content_consumed = bytes(body), True
        except HTTPError as error:
            raise OSError(str(error)) from None
        finally:
            response.close()
        return response


def _bare(href: str | None) -> str:
    return str(href).partition("?")[0]


def _within(seconds: float, work: Callable[[], Answer]) -> Answer:
    """What a call returns; given up after a time, whatever it waits for, also a name server or half a header."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="eosr-web").start()
    try:
        return future.result(max(0.0, seconds))
    except TimeoutError:
        raise APIError(f"timed out after {seconds:.0f} s, as a whole") from None


def check_timeout(timeout: float) -> None:
    """Stop what is no number of seconds to wait."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise SourceError(f"timeout={timeout!r} is no number of seconds. Use e.g. timeout={TIMEOUT:g}.")


def read_document(href: str, web: Web) -> Any:
    """What the JSON at a path or address says; of lines of JSON, each.

    Raises
    ------
    SourceError
        If it cannot be read, or is no JSON.
    """
    default = pystac.StacIO.default()
    # A StacIO of the user's own, e.g. one that knows a password, is asked before ours.
    ours = href.lower().startswith(("http://", "https://")) and type(default) is DefaultStacIO
    try:
        document = _parsed((web if ours else default).read_text(href))
    except SourceError:
        raise
    except json.JSONDecodeError as error:
        raise SourceError(f"{href} is no JSON ({error}), so no STAC. Give the item's or catalogue's .json.") from error
    except RecursionError:
        raise SourceError(_too_deep(href)) from None
    # From None: errors of HTTP hold addresses with their signatures, and a traceback shows them.
    except (OSError, UnicodeDecodeError) as error:
        # urllib raises a subclass of OSError without saying what it was after.
        raise SourceError(f"cannot read {href}: {error}. Check the path or address.") from None
    except APIError as error:
        raise SourceError(
            f"cannot read {href}: {said(error, web)}. Check the path or address, or try again later."
        ) from None
    except Exception as error:  # pystac wraps what urllib raises in a bare Exception
        raise SourceError(f"cannot read {href}: {error.__cause__ or error}. Check the path or address.") from error
    check_depth(document, href)
    return document


def _parsed(text: str) -> Any:
    """What JSON says, or lines of JSON, an item each."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if not error.msg.startswith("Extra data") or len(lines) < 2:
            raise
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError:
            raise error from None


def said(error: Exception, web: Web) -> str:
    """What a server answered instead, or that it did not, in one short line."""
    text = " ".join(str(error).split())
    if "as a whole" in text:
        return f"no whole answer in time ({_WHOLE} x timeout={web.timeout:g} s)"
    if "timed out" in text:
        return f"no answer in time, twice (timeout={web.timeout:g} s)"
    status = getattr(error, "status_code", None)
    return f"HTTP status {status} ({text[:200]})" if status else text[:300]


def check_depth(document: Any, where: str) -> None:
    """Stop where a document is nested deeper than any STAC: copying it would end in a traceback."""
    level: list[Any] = [document]
    for _ in range(_LEVELS):
        level = [
            inner
            for one in level
            if isinstance(one, Mapping | list | tuple)
            for inner in (one.values() if isinstance(one, Mapping) else one)
        ]
        if not level:
            return
    raise SourceError(_too_deep(where))


def _too_deep(where: str) -> str:
    return (
        f"{where or 'the source given'} is nested deeper than {_LEVELS} levels, so it is no STAC. Give the item's or "
        "catalogue's .json."
    )


def links_of(document: Any) -> list[Mapping[str, Any]]:
    """Links of a document, those that are some."""
    links = document.get("links") if isinstance(document, Mapping) else None
    return [link for link in links if isinstance(link, Mapping)] if isinstance(links, list | tuple) else []


def is_remote(address: str) -> bool:
    """Whether an address is one of the network."""
    return "://" in address and not address.lower().startswith("file:")


def on_disk(href: str) -> str:
    """``file:`` addresses as paths, ``%20`` read as a blank; other addresses as they are."""
    if not href.lower().startswith("file:"):
        return href
    plain = href[5:].removeprefix("//localhost").removeprefix("//")
    return plain if Path(plain).exists() else url2pathname(plain)


def resolve(href: str, base: str, *, document: bool = False) -> str:
    """Absolute address that a document at ``base`` names; ``document``: of another document, else of pixels.

    Raises
    ------
    SourceError
        If a document of the network names a file of this disk, or what only GDAL resolves, or another document by
        another scheme; or if it is no address.
    """
    try:
        scheme = urlsplit(href).scheme.lower()
        if not is_remote(base):
            return on_disk(make_absolute_href(href, base) if base else href)
        own = urlsplit(base).scheme.lower()
        allowed = _REMOTE if not document else _WEB if own in _WEB else (own,)
        if (scheme and scheme not in allowed) or href.startswith("/vsi") or "\\" in href:
            raise SourceError(_astray(href, base))
        return str(make_absolute_href(href, base))
    except ValueError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{href!r}, named by {base}, is no address ({error}). Correct it.") from None


def _astray(href: str, base: str) -> str:
    return (
        f"{base} leads to {href}, and a catalogue of the network may name addresses of the network only. If you trust "
        "it, save the document, and open it from disk."
    )
