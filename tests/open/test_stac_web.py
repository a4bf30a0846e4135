"""What a catalogue of the network may not do: lead to this disk, never end, or take all memory or time."""

import contextlib
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pystac
import pytest

from eosr.cli import main
from eosr.errors import SourceError
from eosr.open.catalogue.search import find_items
from eosr.open.catalogue.web import Limits
from eosr.open.stac import open_stac

CORE = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answer(self.server.url, self.path)
        if callable(answer):
            with contextlib.suppress(OSError):
                answer(self)
            return
        body = b"gone" if answer is None else json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()


@contextlib.contextmanager
def answering(answer):
    """A server whose documents are ``answer(its address, path)``; a callable writes what it likes to the handler."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.url, server.answer, server.asked = f"http://127.0.0.1:{server.server_address[1]}", answer, []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def catalogue(*links, kind="Catalog", **more):
    links = [{"rel": rel, "href": href} for rel, href in links]
    return {"type": kind, "id": "c", "stac_version": "1.0.0", "description": "c", "links": links, **more}


def api_of(url, pages):
    """Answer of an API at an address: ``pages(path)`` are those of its search."""

    def answer(url, path):
        if path.startswith("/search"):
            return pages(url, path)
        links = [("self", url), ("root", url)]
        search = {"rel": "search", "href": f"{url}/search", "method": "POST", "type": "application/geo+json"}
        document = catalogue(*links, conformsTo=CORE)
        document["links"].append(search)
        return document

    return answer


HERE = ["file://{here}", "{here}", "/vsizip/{here}", "/vsicurl/{other}/x.json", "ftp://127.0.0.1/x.json", "C:\\x.json"]


@pytest.mark.parametrize("href", HERE)
def test_a_link_of_a_remote_catalogue_to_elsewhere_is_not_followed(written, tmp_path, href):
    """Also a path without a scheme, which is one of the same server."""
    (tmp_path / "secret.json").write_text(json.dumps(written.item(ident="secret")))
    with answering(lambda url, path: None) as other:
        href = href.format(here=tmp_path / "secret.json", other=other.url)
        with answering(lambda url, path: catalogue(("item", href)) if path == "/c.json" else None) as server:
            with pytest.raises(SourceError, match=r"of the network only.*save the document|HTTP status 404"):
                find_items(f"{server.url}/c.json")
            assert other.asked == []


@pytest.mark.parametrize("rel", ["next", "search"])
def test_a_link_of_an_api_to_a_file_of_this_disk_is_not_read(written, tmp_path, rel):
    (tmp_path / "secret.json").write_text(json.dumps({"type": "FeatureCollection", "features": [written.item()]}))
    there = {"rel": rel, "href": f"file://{tmp_path}/secret.json", "method": "POST", "type": "application/geo+json"}
    page = {"type": "FeatureCollection", "features": [written.item(ident="a")], "links": [there]}
    answer = api_of("", lambda url, path: page)

    def trap(url, path):
        document = answer(url, path)
        if rel == "search" and document["type"] == "Catalog":
            document["links"] = [link for link in document["links"] if link["rel"] != "search"] + [there]
        return document

    with answering(trap) as server, pytest.raises(SourceError, match="of the network only"):
        find_items(server.url)


@pytest.mark.parametrize("form", ["file://{}", "/vsizip/{}", "zip+file://{}", "vrt://{}", "{}"])
def test_an_asset_of_a_remote_item_is_no_file_of_this_disk(written, form):
    item = written.item()
    asset = item["assets"]["B02"]
    asset["href"] = form.format(asset["href"])
    with answering(lambda url, path: item if path.endswith("json") else None) as server:
        source = f"{server.url}/item.json"
        with pytest.raises(SourceError, match=r"asset 'B02' of item .*of the network only|cannot read http.*404"):
            open_stac(source, bands=["B02"]).B02.compute()


def test_an_asset_that_nobody_reads_may_lead_anywhere(written):
    item = written.item()
    item["assets"]["thumbnail"] = {"href": "ftp://127.0.0.1/x.png", "roles": ["thumbnail"]}
    with answering(lambda url, path: item) as server:
        assert "href" not in find_items(f"{server.url}/item.json")[0]["assets"]["thumbnail"]


def test_an_items_own_link_to_this_disk_does_not_make_its_hrefs_local(written, tmp_path):
    item = written.item()
    item["links"] = [{"rel": "self", "href": f"file://{tmp_path}/x.json"}]
    page = {"type": "FeatureCollection", "features": [item], "links": []}
    with answering(api_of("", lambda url, path: page)) as server, pytest.raises(SourceError, match="network only"):
        find_items(server.url)


def test_paths_with_blanks_and_percent_signs_are_read_from_file_addresses(tmp_path, written):
    for name in ("a b", "a%20b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "item.json").write_text(json.dumps(written.item(ident=name.replace("%", "p"))))
    (found,) = find_items(f"file://{tmp_path}/a%20b/item.json")
    assert found["id"] == "ap20b"  # the file of that very name is there
    (tmp_path / "a%20b" / "item.json").unlink()
    (found,) = find_items(f"file://{tmp_path}/a%20b/item.json")
    assert found["id"] == "a b"


@pytest.mark.parametrize("new", [True, False])
def test_pages_that_lead_back_end_in_a_sentence(written, new):
    def pages(url, path):
        ident = f"item{len(server.asked)}" if new else "same"
        following = "1" if new else str(len(server.asked))
        return {
            "type": "FeatureCollection", "features": [written.item(ident=ident)],
            "links": [{"rel": "next", "href": f"{url}/search?page={following}"}],
        }  # fmt: skip

    with answering(api_of("", pages)) as server:
        with pytest.raises(SourceError, match=r"never end: page 2 (leads back|repeats items)"):
            find_items(server.url)
        assert len(server.asked) < 6


@pytest.mark.parametrize("name", ["requests", "items"])
def test_pages_that_are_always_new_end_at_a_limit_that_can_be_set(written, name):
    def pages(url, path):
        n = len(server.asked)
        links = [{"rel": "next", "href": f"{url}/search?page={n}"}]
        return {"type": "FeatureCollection", "features": [written.item(ident=f"{n}")], "links": links}

    with answering(api_of("", pages)) as server:
        with pytest.raises(SourceError, match=rf"more than 10 .*limits=eosr\.open\.Limits\({name}=20\)"):
            find_items(server.url, limits=Limits(**{name: 10}))
        assert len(server.asked) <= 13


def test_the_command_line_sets_limits_and_says_how_to_raise_one(capsys, tmp_path):
    with answering(lambda url, path: catalogue(*(("child", f"{url}/{k}.json") for k in range(9)))) as server:
        command = ["superresolve", f"{server.url}/c.json", str(tmp_path / "out"), "--timeout", "9"]
        assert main([*command, "--limit", "requests=3"]) == 1
        assert "Narrow the search, or allow more: --limit requests=6." in capsys.readouterr().err
        for limit, says in {
            "pages=3": "--limit pages is unknown. Use one of requests, items, depth, megabytes, seconds, e.g. --limit",
            "requests": "--limit requests is no KEY=VALUE. Use e.g. --limit requests=10000.",
            "requests=few": "requests='few' is no limit.",
        }.items():
            assert main([*command, "--limit", limit]) == 1
            assert says in capsys.readouterr().err


def test_catalogues_inside_of_each_other_end_at_a_depth():
    def answer(url, path):
        return catalogue(("child", f"{url}/{len(server.asked)}.json"))

    with answering(answer) as server:
        with pytest.raises(SourceError, match=r"lies more than 20 catalogues deep.*Limits\(depth=40\)"):
            find_items(f"{server.url}/0.json")
        assert len(server.asked) == 21
        with pytest.raises(SourceError, match=r"pystac cannot read the items of .*Give its address instead"):
            find_items(pystac.Catalog.from_file(f"{server.url}/0.json"))


def bomb(handler):
    """100 MB of blanks in 100 kB."""
    body = gzip.compress(b'{"a": "' + b" " * 100_000_000 + b'"}')
    handler.send_response(200)
    for name, value in {"Content-Encoding": "gzip", "Content-Length": len(body)}.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def drip(handler):
    """A byte now and then, without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


def drip_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def redirect_with_a_bomb(handler):
    handler.send_response(302)
    handler.send_header("Location", "/item.json")
    handler.send_header("Content-Length", "1000000000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" " * 1_000_000)


@pytest.mark.parametrize("trap", [bomb, redirect_with_a_bomb])
def test_an_answer_that_unpacks_to_more_than_any_item_is_given_up(trap):
    says = r"is over 64 MB.*Limits\(megabytes=128\)"
    with answering(lambda url, path: trap) as server, pytest.raises(SourceError, match=says):
        find_items(f"{server.url}/item.json")


@pytest.mark.parametrize("trap", [drip, drip_headers])
def test_an_answer_that_comes_byte_by_byte_is_given_up(trap):
    says = r"no whole answer in time \(3 x timeout=0.3 s\)"
    with answering(lambda url, path: trap) as server, pytest.raises(SourceError, match=says):
        find_items(f"{server.url}/item.json", timeout=0.3)


def test_a_search_as_a_whole_ends_in_time():
    def answer(url, path):
        time.sleep(0.1)
        return catalogue(*(("child", f"{url}/{len(server.asked)}-{one}.json") for one in range(50)))

    with answering(answer) as server, pytest.raises(SourceError, match=r"takes more than 0.5 s.*|whole answer in time"):
        find_items(f"{server.url}/0.json", limits=Limits(seconds=0.5))


@pytest.mark.parametrize("name", ["requests", "items", "depth", "megabytes", "seconds"])
@pytest.mark.parametrize("value", [0, -1, True, "many", float("nan")])
def test_what_is_no_limit_is_refused(name, value):
    with pytest.raises(SourceError, match=rf"{name}=.* is no limit\. Use e\.g\. eosr\.open\.Limits\({name}="):
        Limits(**{name: value})


@pytest.mark.parametrize("links", [None, "abc", 5, [None], ["abc"], [{"rel": ["item"]}], {"rel": "item"}])
@pytest.mark.parametrize("kind", ["Catalog", "Collection"])
def test_links_that_are_none_are_taken_for_none(tmp_path, kind, links):
    (tmp_path / "c.json").write_text(json.dumps(catalogue(kind=kind) | {"links": links}))
    with pytest.raises(SourceError, match="no item found"):
        find_items(tmp_path / "c.json")


@pytest.mark.parametrize(("features", "says"), [(5, "features are 5, not a list"), ([5], "holds int 5 where an item")])
def test_features_that_are_none_are_refused(tmp_path, features, says):
    document = {"type": "FeatureCollection", "features": features}
    (tmp_path / "c.json").write_text(json.dumps(document))
    for source in (document, tmp_path / "c.json"):
        with pytest.raises(SourceError, match=says):
            find_items(source)


@pytest.mark.parametrize("levels", [900, 100_000])
def test_json_that_is_nested_without_end_is_refused(tmp_path, written, levels):
    text = json.dumps(written.item())[:-1] + ', "x": ' + "[" * levels + "]" * levels + "}"
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(SourceError, match="nested deeper than 100 levels, so it is no STAC"):
        find_items(tmp_path / "item.json")
    deep = []
    for _ in range(levels):
        deep = [deep]
    with pytest.raises(SourceError, match="the source given is nested deeper than 100 levels"):
        find_items(written.item() | {"x": deep})


@pytest.mark.parametrize(("scheme", "rest"), [("https", "[::1"), ("http", "["), ("s3", "[x/y.json")])
def test_what_is_no_address_is_refused(written, scheme, rest):
    address = f"{scheme}://{rest}"
    with pytest.raises(SourceError, match=r"is no address|cannot read"):
        find_items(address)
    item = written.item()
    item["assets"]["B02"]["href"] = address
    with pytest.raises(SourceError, match=r"asset 'B02' of item .* is no address"):
        open_stac(item, bands=["B02"])
