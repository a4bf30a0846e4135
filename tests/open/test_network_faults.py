"""Faults of the network, from the API to the sharpened pixels: the right pixels, or an error that names the file.

What a server can do wrong is in `range_server`. Faults of files on disk, and files that are not what their item says,
are in `test_stac_faults`.
"""

import json
import shutil
import ssl
import subprocess
import threading
import traceback
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import dask
import numpy as np
import pytest
import rasterio
from support.range_server import serve
from support.scenes import make_item, stac_api, write_scene

import eosr
from eosr.errors import SourceError
from eosr.open.catalogue import web as stac_web
from eosr.open.catalogue.search import find_items
from eosr.open.reading import GDAL_ENV
from eosr.open.stac import open_stac

#: So that a test does not wait: short pauses between tries. No short time-outs: a busy machine would miss them.
QUICK = {"GDAL_HTTP_MAX_RETRY": "2", "GDAL_HTTP_RETRY_DELAY": "0.01"}
#: For servers that never answer.
IMPATIENT = {"GDAL_HTTP_TIMEOUT": "0.3", "GDAL_HTTP_MAX_RETRY": "0"}

#: Fault -> what the error says. ``data-``: only after the head of the file has come.
REFUSED = {
    "404": r"HTTP response code: 404\. Check that the address exists",
    "data-404": r"Read error.*less came than was asked for, or the server failed",
    "403": r"HTTP response code: 403\. The server refuses\. .*open the items again.*sign=",
    "expired": r"HTTP response code: 403\. The server refuses\. A signature that has run out needs a new one",
    "500": r"HTTP response code: 500\. The server fails or is busy\. .*'GDAL_HTTP_MAX_RETRY': '10'",
    "data-500": r"Read error.*the server failed or stalled",
    "503": r"HTTP response code: 503\. The server fails or is busy\. ",
    "stall": r"timed out.*wait longer: gdal_env=",
    "cut": r"Read error.*file is whole: less came than was asked for",
    "data-cut": r"Read error.*file is whole: less came than was asked for",
    "truncated": r"Read error.*file is whole: less came than was asked for",
    "empty": r"neither a GeoTIFF nor a JPEG 2000.*Check that the address exists and the file is whole",
    "data-whole": r"Range downloading not supported.*cannot send parts of a file: download it",
    "short": r"Read error.*less came than was asked for",
    "data-short": r"Read error.*less came than was asked for",
    "wrong-range": r"neither a GeoTIFF nor a JPEG 2000.*Check that the address exists and the file is whole",
    "data-wrong-range": r"Decoding error.*Check that the address exists and the file is whole",
    "garbage": r"neither a GeoTIFF nor a JPEG 2000.*Check that the address exists and the file is whole",
    "data-garbage": r"Range downloading not supported.*download it",
}
#: Faults that pass, or that do not matter, because what GDAL asked for has come.
RECOVERED = [
    "500-once", "data-500-once", "503-twice", "cut-first", "data-cut-once", "data-short-once", "data-wrong-range-first",
    "404-first", "403-first", "long", "data-long", "wrong-total", "data-wrong-total",
]  # fmt: skip


def impatient_where_it_stalls(mode):
    return IMPATIENT if "stall" in mode else QUICK


def with_fault(scene, server, mode, band="B05", query=""):
    """The item, with one of its files at an address with a fault."""
    item = scene.item(base=f"{server.url}/ok")
    item["assets"][band]["href"] = f"{server.url}/{mode}/{band}.tif{query}"
    return item


# --- one file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", REFUSED)
def test_a_fault_that_stays_is_an_error_that_names_the_file_and_what_to_do(written, range_server, mode):
    item = with_fault(written, range_server, mode)
    ds = open_stac(item, gdal_env=impatient_where_it_stalls(mode))
    with pytest.raises(SourceError, match=rf"cannot read {range_server.url}/{mode}/B05.tif: .*{REFUSED[mode]}"):
        ds["B05"].compute()
    # Read twice, each time with what GDAL asks by itself: nothing goes on for ever.
    assert len(range_server.requests) <= 2 * (2 + 6) * (1 + int(QUICK["GDAL_HTTP_MAX_RETRY"]))


@pytest.mark.parametrize("mode", RECOVERED)
def test_a_fault_that_passes_leaves_the_right_pixels(written, range_server, mode):
    ds = open_stac(with_fault(written, range_server, mode), gdal_env=QUICK)
    np.testing.assert_array_equal(ds["B05"].values[0], written.pixels["B05"])
    assert any(f"/{mode}/" in path for _, path, _ in range_server.requests)


def test_a_server_without_ranges_gives_the_right_pixels_or_an_error(written, range_server):
    """It depends on what GDAL keeps of the whole file that came; nothing in between may happen."""
    ds = open_stac(with_fault(written, range_server, "whole"), gdal_env=QUICK)
    try:
        pixels = ds["B05"].values[0]
    except SourceError as error:
        assert "/whole/B05.tif: Range downloading not supported" in str(error)  # noqa: PT017
        assert "download it, and open it from disk" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(pixels, written.pixels["B05"])


def test_a_body_that_is_cut_is_read_again_in_every_block(written, range_server):
    """Nine blocks one after the other, each of which has its first requests cut."""
    item = with_fault(written, range_server, "data-cut-once", band="B02")
    ds = open_stac(item, chunks=120, gdal_env=QUICK)
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(ds["B02"].values[0], written.pixels["B02"])


def test_threads_that_share_a_file_whose_bodies_are_cut_end_with_the_right_pixels(written, range_server):
    """What a thread asks for depends on what others hold, so a block may fail twice; none may be wrong or wait.

    GDAL's own way to forget a file, CPL_VSIL_CURL_NON_CACHED, ended here in a deadlock.
    """
    item = with_fault(written, range_server, "data-cut-once", band="B02")
    ds = open_stac(item, chunks=60, gdal_env=QUICK)
    for _ in range(20):
        try:
            pixels = ds["B02"].compute(scheduler="threads", num_workers=8).values[0]
        except SourceError:
            continue
        break
    np.testing.assert_array_equal(pixels, written.pixels["B02"])


def test_a_jpeg_2000_file_whose_data_fail_is_an_error_not_nodata(tmp_path):
    scene = write_scene(tmp_path, size=360)
    options = {"quality": "100", "reversible": "YES", "blockxsize": 128, "blockysize": 128}
    rasterio.shutil.copy(tmp_path / "B02.tif", tmp_path / "B02.jp2", driver="JP2OpenJPEG", **options)
    with serve(tmp_path) as server:
        for mode in ("data-500", "data-cut", "truncated", "ok", "data-cut-first"):
            item = scene.item(base=f"{server.url}/ok")
            item["assets"]["B02"]["href"] = f"{server.url}/{mode}/B02.jp2"
            ds = open_stac(item, gdal_env=QUICK)
            if mode in ("ok", "data-cut-first"):
                np.testing.assert_array_equal(ds["B02"].values[0], scene.pixels["B02"])
            else:
                with pytest.raises(SourceError, match=rf"cannot read .*/{mode}/B02.jp2: "):
                    ds["B02"].compute()


def test_s3_recovers_by_the_retries_of_gdal_or_names_the_file(written, range_server):
    """There is no second try on S3: its addresses have no part that is not sent."""
    host = range_server.url.removeprefix("http://")
    env = QUICK | {
        "AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES",
    }  # fmt: skip
    item = written.item(base="s3://ok")
    item["assets"]["B05"]["href"] = "s3://503-twice/B05.tif"
    item["assets"]["B06"]["href"] = "s3://500/B06.tif"
    item["assets"]["B07"]["href"] = "s3://data-cut/B07.tif"
    ds = open_stac(item, gdal_env=env)
    np.testing.assert_array_equal(ds["B05"].values[0], written.pixels["B05"])
    for mode, band in (("500", "B06"), ("data-cut", "B07")):
        with pytest.raises(SourceError, match=rf"cannot read s3://{mode}/{band}.tif: .*Reading s3 needs credentials"):
            ds[band].compute()


# --- signatures ------------------------------------------------------------------------------------------------------


def test_a_signature_that_ran_out_is_said_and_a_new_one_reads(written, range_server):
    item = written.item(base=f"{range_server.url}/expired")
    old = open_stac(item, bands=["B05"], sign=lambda href: href + "?sig=old", gdal_env=QUICK)
    with pytest.raises(SourceError, match=r"/expired/B05.tif: HTTP response code: 403.*open the items again") as error:
        old["B05"].compute()
    assert "sig=" not in str(error.value)
    new = open_stac(item, bands=["B05"], sign=lambda href: href + "?sig=good", gdal_env=QUICK)
    np.testing.assert_array_equal(new["B05"].values[0], written.pixels["B05"])


@pytest.mark.parametrize("mode", ["404", "empty", "data-cut", "stall"])
def test_an_error_does_not_tell_the_signature(written, range_server, mode):
    item = with_fault(written, range_server, mode, query="?se=2030-01-01T00%3A00Z&sig=secret")
    ds = open_stac(item, gdal_env=impatient_where_it_stalls(mode))
    with pytest.raises(SourceError, match=rf"cannot read {range_server.url}/{mode}/B05.tif: ") as error:
        ds["B05"].compute()
    assert "secret" not in str(error.value)


class Circle(BaseHTTPRequestHandler):
    """Every address leads to itself."""

    def do_HEAD(self):
        self.send_response(302)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


@contextmanager
def listening(handler, tls=None):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def of_address(written, address):
    item = written.item()
    for name, asset in item["assets"].items():
        asset["href"] = f"{address}/{name}.tif"
    return item


def test_a_host_that_is_not_reached_is_said_with_what_to_try(written):
    with listening(Circle) as host:
        circle = open_stac(of_address(written, f"http://{host}"), bands=["B05"], gdal_env=QUICK)
        with pytest.raises(SourceError, match=r"\(10\) redirects followed\. The address leads in a circle"):
            circle["B05"].compute()
    for address, message in {
        f"http://{host}": r"(Could not|Couldn't) connect to server\. Nothing answers there\. Check host and port",
        "http://nobody.invalid": r"Could not resolve host: nobody\.invalid\. No name server knows the host",
    }.items():
        ds = open_stac(of_address(written, address), bands=["B05"], gdal_env=QUICK)
        with pytest.raises(SourceError, match=message):
            ds["B05"].compute()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_that_nobody_vouches_for_is_said_and_can_be_named(written, tmp_path):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*made, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with listening(partial(SimpleHTTPRequestHandler, directory=tmp_path), tls) as host:
        item = of_address(written, f"https://{host}")
        with pytest.raises(SourceError, match=r"certificate\. The connection cannot be trusted\..*GDAL_CURL_CA_BUNDLE"):
            open_stac(item, bands=["B05"], gdal_env=QUICK)["B05"].compute()
        named = {**QUICK, "GDAL_CURL_CA_BUNDLE": certificate}
        with pytest.raises(SourceError, match=r"HTTP response code: 404\. Check that the address exists"):
            open_stac(item, bands=["B06"], gdal_env=named)["B06"].compute()


# --- afterwards ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["404", "403", "500", "stall", "cut", "data-cut", "truncated", "empty", "garbage"])
def test_a_file_that_is_there_again_is_read_by_the_same_process(written, range_server, mode):
    """GDAL keeps for the life of a process that a file could not be opened, and the bytes of a body that was cut."""
    item = written.item(base=f"{range_server.url}/ok")
    range_server.mode = mode
    ds = open_stac(item, gdal_env=impatient_where_it_stalls(mode))
    with pytest.raises(SourceError, match=r"cannot read .*/ok/B05.tif"):
        ds["B05"].compute()
    range_server.mode = ""
    ds = open_stac(item, gdal_env=QUICK)
    np.testing.assert_array_equal(ds["B05"].values[0], written.pixels["B05"])


def test_gdal_itself_does_remember(range_server):
    """Should this fail, GDAL has changed, and `read_twice` has one reason less."""
    for range_server.mode in ("404", ""):
        with pytest.raises(rasterio.errors.RasterioIOError, match="404"):
            rasterio.open(f"{range_server.url}/ok/B05.tif")


def test_what_is_right_is_not_read_twice(written, range_server):
    ds = open_stac(written.item(base=f"{range_server.url}/ok"), gdal_env=QUICK, bands=["B05"])
    for _ in range(2):
        np.testing.assert_array_equal(ds["B05"].values[0], written.pixels["B05"])
    gets = [asked for command, _, asked in range_server.requests if command == "GET"]
    assert len(gets) == len(set(gets))


# --- time-outs -------------------------------------------------------------------------------------------------------


def test_a_server_that_stalls_is_given_up_and_not_asked_five_times_again(written, range_server):
    """With the retries of the default: GDAL repeats a request that took too long, but not one in which nothing came."""
    ds = open_stac(with_fault(written, range_server, "stall"), gdal_env={"GDAL_HTTP_LOW_SPEED_TIME": "1"})
    with pytest.raises(SourceError, match=r"too slow.*wait longer: gdal_env="):
        ds["B05"].compute()
    assert len(range_server.requests) == 2


def test_a_block_whose_data_stall_is_given_up_within_five_minutes(written, range_server):
    """As many requests as here, each with the 20 s of the default."""
    ds = open_stac(with_fault(written, range_server, "data-stall"), gdal_env=IMPATIENT)
    with pytest.raises(SourceError, match=r"(timed out|Read error).*wait longer: gdal_env="):
        ds["B05"].compute()
    assert len(range_server.requests) * int(GDAL_ENV["GDAL_HTTP_LOW_SPEED_TIME"]) <= 300


def test_time_outs_of_the_environment_hold_too_and_gdal_env_goes_first(written, range_server, monkeypatch):
    item = with_fault(written, range_server, "stall")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "3600")
    ds = open_stac(item, gdal_env={"GDAL_HTTP_TIMEOUT": "0.3"})
    with pytest.raises(SourceError, match=r"timed out after 3.. milliseconds"):
        ds["B05"].compute()
    assert len(range_server.requests) == 2


# --- the whole path --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sharp(written):
    return sharpened(open_stac(written.item()))


def sharpened(ds):
    return eosr.superresolve(ds, method="bicubic", bands=["B05"])["B05"].values


@pytest.mark.parametrize("mode", ["503-twice", "data-cut-once", "404", "data-500", "truncated", "stall"])
def test_sharpened_pixels_are_right_or_the_file_is_named(written, range_server, sharp, mode):
    item = with_fault(written, range_server, mode)
    ds = open_stac(item, gdal_env=impatient_where_it_stalls(mode))
    if mode in REFUSED:
        with pytest.raises(SourceError, match=rf"cannot read {range_server.url}/{mode}/B05.tif: .*{REFUSED[mode]}"):
            sharpened(ds)
    else:
        np.testing.assert_array_equal(sharpened(ds), sharp)


# --- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(written, tmp_path_factory):
    """A real STAC API server of one item, its files on an address that a test replaces."""
    path = tmp_path_factory.mktemp("api") / "items.json"
    item = make_item(written, "legacy", "http://files.invalid/files", "one", {})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    with stac_api(path) as url:
        yield url


@pytest.fixture
def front(api, written, monkeypatch):
    """A server before the API that shows a fault, or passes on what the API says; asked again without a pause."""
    monkeypatch.setattr("eosr.open.catalogue.web._RETRIES", stac_web._RETRIES.new(backoff_factor=0))
    with serve(written.folder, upstream=api) as server:
        yield server


def test_from_an_api_with_a_busy_search_to_sharpened_pixels_over_a_bad_line(front, range_server, written, sharp):
    def elsewhere(href):
        return href.replace("http://files.invalid/files", f"{range_server.url}/data-cut-once")

    ds = open_stac(
        f"{front.url}/search-503-twice/", collection="sentinel-2-l2a", datetime="2023-06",
        sign=elsewhere, gdal_env=QUICK,
    )  # fmt: skip
    assert ds.attrs["item_ids"] == ["one"]
    np.testing.assert_array_equal(sharpened(ds), sharp)
    assert sum(path.endswith("/search") for _, path, _ in front.requests) == 3


@pytest.mark.parametrize("mode", ["ok", "500-first", "503-first", "search-500-first"])
def test_an_api_that_fails_once_is_asked_again(front, mode):
    found = find_items(f"{front.url}/{mode}/", collection="sentinel-2-l2a", datetime="2023-06")
    assert [item["id"] for item in found] == ["one"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("404", r"cannot read {url}: HTTP status 404 \(gone\)\. Check the path or address"),
        ("500", r"cannot read {url}: HTTP status 500 \(no\)\. Check the path or address, or try again later"),
        ("garbage", r"{url} is no JSON .*so no STAC"),
        ("cut", r"cannot read {url}: .*(IncompleteRead|broken).*Check the path or address, or try again later"),
        ("stall", r"cannot read {url}: no answer in time, twice \(timeout=0.5 s\)"),
        ("search-403", r"the STAC API at {url} does not answer the search: HTTP status 403 \(no\)\. Try again"),
        ("search-500", r"the STAC API at {url} does not answer the search: HTTP status 500 \(no\)\. Try again"),
        ("search-garbage", r"the STAC API at {url} answers the search with something that is no STAC"),
        ("search-cut", r"the STAC API at {url} does not answer the search: .*(IncompleteRead|broken)"),
        ("search-stall", r"no answer in time, twice \(timeout=0.5 s\)"),
    ],
)
def test_an_api_that_fails_is_an_error_that_names_it(front, mode, message):
    url = f"{front.url}/{mode}/"
    with pytest.raises(SourceError, match=message.format(url=url)):
        find_items(url, collection="sentinel-2-l2a", datetime="2023-06", timeout=0.5 if "stall" in mode else 60)
    assert len(front.requests) <= 10


@pytest.mark.parametrize("mode", ["404", "500", "garbage", "cut", "search-403", "search-cut", "nobody"])
def test_an_error_of_a_catalogue_does_not_tell_the_password_or_the_signature(front, mode):
    host = "127.0.0.1:1" if mode == "nobody" else front.url.removeprefix("http://")
    word = "sec" + "ret"  # a traceback quotes the lines of this file
    url = f"me:{word}@{host}/{mode}/?se=1&sig={word}"
    with pytest.raises(SourceError, match=rf"http://{host}/{mode}/") as error:
        find_items("http://" + url, collection="sentinel-2-l2a", datetime="2023-06")
    assert word not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", None, True])
def test_a_time_out_that_is_none_is_refused(written, timeout):
    with pytest.raises(SourceError, match=r"timeout=.* is no number of seconds. Use e.g. timeout=60\."):
        open_stac(written.item(), timeout=timeout)
