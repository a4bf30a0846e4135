"""Faults of the network and of the disk in EOPF stores: the right pixels, or an error that names the array."""

import re
import time
import traceback

import numpy as np
import pytest
from support.range_server import serve

from eosr.errors import SourceError, without_secrets
from eosr.open.eopf.product import open_eopf
from open.test_eopf import R, unconsolidate, write_eopf

pytest.importorskip("aiohttp")
BAND = f"{R}/r10m/b03"
SECRET = "?se=2030-01-01T00%3A00Z&sig=se%2Bcr%2Fet%3D"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("eosr.open.eopf.store._PAUSE", 0.01)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One product, for each version of Zarr, with consolidated metadata and without."""
    found = {}
    for version in (2, 3):
        for whole in (True, False):
            written = write_eopf(tmp_path_factory.mktemp("stores"), version=version)
            if not whole:
                unconsolidate(written.path)
            found[version, whole] = written
    return found


@pytest.fixture
def at(stores):
    """Serve one of the stores: ``at(version, consolidated)`` is what was written and the server."""
    running = []

    def started(version=3, whole=True):
        written = stores[version, whole]
        running.append(serve(written.path.parent))
        return written, running[-1].__enter__()

    yield started
    for one in running:
        one.__exit__(None, None, None)


def metadata(version) -> str:
    return {2: ".zarray", 3: "zarr.json"}[version]


# ------------------------------------------------------------------------------------------------------------ opening


@pytest.mark.parametrize(
    ("version", "whole", "mode"),
    [
        *((3, True, mode) for mode in ("500-first", "503-twice", "403-first", "cut-first", "garbage-first")),
        (3, True, "503-first"), (2, True, "cut-first"), (2, False, "500-first"), (3, False, "503-twice"),
    ],
)  # fmt: skip
def test_a_fault_that_passes_is_asked_again(version, whole, mode, at):
    written, server = at(version, whole)
    ds = open_eopf(f"{server.url}/{mode}/{written.path.name}", bands=["B02", "B05"], masks=True)
    for name in ds.data_vars:
        np.testing.assert_array_equal(ds[name].isel(time=0).values, written.pixels[name])


def test_a_block_of_many_requests_is_read_though_every_fourth_fails(at, monkeypatch):
    """25 chunks: read as a whole three times, it would fail three times."""
    written, server = at()
    ds = open_eopf(f"{server.url}/ok/{written.path.name}", bands=["B02"])
    monkeypatch.setattr(
        server.RequestHandlerClass, "_fault", lambda self, *_, **__: "ok" if len(server.requests) % 4 else "500"
    )
    np.testing.assert_array_equal(ds["B02"].isel(time=0).values, written.pixels["B02"])


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("500", r"cannot read {url}: HTTP status 500 \(Internal Server Error\)\. The server fails or is busy\. Try ag"),
        ("503", r"cannot read {url}: HTTP status 503 \(Service Unavailable\)\. The server fails or is busy\. Try ag"),
        ("403", r"cannot read {url}: HTTP status 403 \(Forbidden\)\. The server refuses\. A signature in the address"),
        ("404", r"{url} is no Zarr store that can be read \(.*\)\. Name the root of an EOPF product: the folder"),
        ("garbage", r"{url} is no Zarr store that can be read \(.*\)\. Name the root"),
        ("cut", r"{url} is no Zarr store that can be read \(.*Not enough data.*\)\. Name the root"),
        (
            "stall",
            r"cannot read {url}: no answer in time, twice \(timeout=0\.3 s\)\. Try again later, or wait longer: t",
        ),
    ],
)
def test_a_fault_that_stays_when_the_store_is_opened_is_told_as_what_it_is(mode, said, at):
    written, server = at()
    url = f"{server.url}/{mode}/{written.path.name}"
    with pytest.raises(SourceError, match=said.format(url=re.escape(url))):
        open_eopf(url, timeout=0.3 if mode == "stall" else 60)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("500", r"HTTP status 500 \(Internal Server Error\)\. The server fails or is busy\. Try again later\."),
        ("403", r"HTTP status 403 \(Forbidden\)\. The server refuses\."),
        ("cut", r"Not enough data.*\. Check that the product is whole and in reach\."),
        ("garbage", r"Expecting value.*\. Check that the product is whole and in reach\."),
        ("stall", r"no answer in time, twice \(timeout=0\.3 s\)\. Try again later, or wait longer: timeout=0\.6\."),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_a_fault_at_the_metadata_of_one_band_names_the_band(version, mode, said, at, monkeypatch):
    written, server = at(version, whole=False)
    real = server.RequestHandlerClass._fault
    monkeypatch.setattr(
        server.RequestHandlerClass, "_fault",
        lambda self, found, **given: mode if self.path.endswith(f"b03/{metadata(version)}") else
        real(self, found, **given),
    )  # fmt: skip
    url = f"{server.url}/ok/{written.path.name}"
    with pytest.raises(SourceError, match=rf"^cannot read {url}/{BAND}: .*{said}"):
        open_eopf(url, timeout=0.3 if mode == "stall" else 60)


@pytest.mark.parametrize("version", [2, 3])
def test_damaged_metadata_of_one_band_on_disk_name_the_band(version, tmp_path):
    written = write_eopf(tmp_path, version=version)
    unconsolidate(written.path)
    file = written.path / BAND / metadata(version)
    for text in ("<html>", file.read_text()[:-30], '{"zarr_format": 7}'):
        file.write_text(text)
        with pytest.raises(SourceError, match=rf"^cannot read {written.path}/{BAND}: .*Check that the product is who"):
            open_eopf(written.path)


# ---------------------------------------------------------------------------------------------------------- time-outs


def test_a_server_that_stalls_is_given_up_after_two_time_outs(at):
    written, server = at()
    ds = open_eopf(f"{server.url}/ok/{written.path.name}", bands=["B03"], timeout=0.5)
    server.mode = "stall"
    began = time.monotonic()
    with pytest.raises(
        SourceError,
        match=rf"^cannot read \S*/{BAND}: no answer in time, twice \(timeout=0\.5 s\)\. Try again later, or",
    ):
        ds["B03"].compute(scheduler="synchronous")
    assert 0.9 < time.monotonic() - began < 30
    server.mode = ""
    np.testing.assert_array_equal(ds["B03"].isel(time=0).values, written.pixels["B03"])


def test_the_time_out_bounds_the_request_as_a_whole_too():
    from eosr.open.catalogue.web import TIMEOUT
    from eosr.open.eopf.store import _http

    waits = _http("http://127.0.0.1:9/x.zarr", TIMEOUT)[1]["client_kwargs"]["timeout"]
    assert (waits.total, waits.sock_connect, waits.sock_read) == (600, 60, 60)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", None, True])
def test_a_time_out_that_is_none_is_refused(timeout, stores):
    with pytest.raises(SourceError, match=r"timeout=.* is no number of seconds. Use e.g. timeout=60\."):
        open_eopf(stores[3, True].path, timeout=timeout)


# ------------------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize("mode", ["404", "403", "500", "garbage", "cut", "stall"])
@pytest.mark.parametrize("later", [False, True], ids=["opening", "pixels"])
def test_an_error_does_not_tell_signature_or_password(mode, later, at):
    written, server = at()
    place = server.url.replace("://", "://user:pass%2Fword@")
    url, timeout = f"{place}/ok/{written.path.name}/{SECRET}", 0.3 if mode == "stall" else 60
    if later:
        ds = open_eopf(url, bands=["B03"], timeout=timeout)
        if mode == "404":  # nodata, as Zarr defines it
            return
    server.mode = mode
    with pytest.raises(SourceError, match=rf"{server.url}/ok/{written.path.name}") as caught:
        ds["B03"].compute() if later else open_eopf(url, timeout=timeout)
    shown = "".join(traceback.format_exception(caught.value))
    assert not [one for one in ("sig=", "cr%2F", "se+cr", "user", "word") if one in str(caught.value)]
    # The lines of this test hold the names, its values do not.
    assert not [one for one in ("cr%2F", "pass%2F", "user:") if one in re.sub(r"(?m)^ {4}.*\n", "", shown)]


def test_a_signature_is_sent_with_every_request_and_is_no_part_of_the_product(at):
    written, server = at()
    url = f"{server.url}/ok/{written.path.name}"
    plain, signed = open_eopf(url, bands=["B03"]), open_eopf(url + SECRET, bands=["B03"])
    server.requests.clear()
    np.testing.assert_array_equal(signed["B03"].isel(time=0).values, written.pixels["B03"])
    assert server.requests
    assert all("sig=se%2Bcr/et%3D" in path.replace("%2F", "/") for _, path, _ in server.requests)
    assert signed["B03"].data.name == plain["B03"].data.name
    assert signed.attrs == plain.attrs


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("403, url='http://h.invalid/x.zarr/.zgroup?sig=a&b=c'", "403, url='http://h.invalid/x.zarr/.zgroup'"),
        ("https://me:pass@word@h.invalid:80/x?y#z (no)", "https://h.invalid:80/x (no)"),
        ("s3://bucket/x.zarr", "s3://bucket/x.zarr"),
        ("is it me@home? no: /a/b?c", "is it me@home? no: /a/b?c"),
        ("two: http://a@b.invalid/c?d, http://e.invalid/f?g=h", "two: http://b.invalid/c, http://e.invalid/f"),
    ],
)
def test_addresses_lose_what_may_be_secret(text, bare):
    assert without_secrets(text) == bare


# ------------------------------------------------------------------------------------------------------------ workers


@pytest.mark.parametrize("mode", ["403", "500", "cut", "stall"])
def test_an_error_of_a_worker_is_the_same(mode, at, one_worker):
    written, server = at()
    url = f"{server.url}/ok/{written.path.name}{SECRET}"
    ds = open_eopf(url, bands=["B03"], timeout=0.5)
    np.testing.assert_array_equal(ds["B03"].isel(time=0).values, written.pixels["B03"])
    server.mode = mode
    with pytest.raises(SourceError, match=rf"^cannot read {url.partition('?')[0]}/{BAND}: ") as caught:
        ds["B03"].compute()
    assert "sig=" not in str(caught.value)


@pytest.fixture(scope="module")
def one_worker():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    with cluster, distributed.Client(cluster) as client:
        yield client


def test_a_chunk_larger_than_a_tile_is_refused_before_it_is_unpacked(tmp_path):
    product = write_eopf(tmp_path, version=3).path
    for whole in product.rglob("zarr.json"):  # consolidated or not, wherever the shape of a chunk is stated
        text = re.sub(r'"chunk_shape":\s*\[\s*\d+,\s*\d+\s*\]', '"chunk_shape": [100000, 100000]', whole.read_text())
        whole.write_text(text)
    with pytest.raises(SourceError, match=r"is packed in chunks of 100000 x 100000 pixels, more than a tile"):
        open_eopf(product, bands=["B02"])
