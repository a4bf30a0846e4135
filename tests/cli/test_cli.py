"""The command line on a small synthetic scene: what it writes, prints, refuses, and how it goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from support.scenes import write_cog, write_scene

import eosr
from eosr.cli import evaluate as cli_evaluate
from eosr.cli import main
from eosr.cli import options as cli_options
from eosr.cube.degradation import DEGRADATIONS
from eosr.errors import OutputError, printable
from eosr.sharpen.methods import ALIASES, METHODS
from eosr.write import deliver


@pytest.fixture
def item(written, tmp_path):
    """Path of a STAC item of the synthetic scene of 360 x 360 pixels."""
    path = tmp_path / "item.json"
    path.write_text(json.dumps(written.item()))
    return str(path)


def quick(item, out, *more):
    return ["superresolve", item, str(out), "--method", "bicubic", "--bands", "B02,B05", "--quiet", *more]


def breaking(item, blocks):
    """A Dataset whose computation is interrupted after some blocks."""
    ds = eosr.superresolve(eosr.open_stac(item, chunks=96), method="bicubic", bands=["B05"])
    computed = []

    def stop(block):
        computed.append(block.shape)
        if len(computed) > blocks:
            raise KeyboardInterrupt
        return block

    return ds.assign(B05=ds.B05.copy(data=ds.B05.data.map_blocks(stop, dtype="uint16", meta=np.empty((0, 0, 0)))))


def written_at(store, blocks):
    """When the chunks of B05 were written, by block."""
    return {block: (store / "B05" / "c").joinpath(*block.split(".")).stat().st_mtime_ns for block in blocks}


def test_superresolve_writes_zarr_cogs_and_an_item_that_opens_again(item, tmp_path, capsys):
    assert main(["superresolve", item, str(tmp_path / "out"), "--method", "bicubic"]) == 0
    told = capsys.readouterr()
    assert "12 bands of 360 x 360 pixels in" in told.out
    path = next((tmp_path / "out").glob("*_eosr.json"))
    assert str(path) in told.out
    assert "writing" in told.err  # progress

    expected = eosr.superresolve(eosr.open_stac(item), method="bicubic")
    from_cogs = eosr.open_stac(path)
    from_zarr = xr.open_zarr(tmp_path / "out" / "sharpened.zarr", decode_coords="all")
    for band in ("B02", "B8A", "B09"):
        np.testing.assert_array_equal(from_cogs[band].values, expected[band].values)
        np.testing.assert_array_equal(from_zarr[band].values, expected[band].values)
    assert not list((tmp_path / "out").glob(".eosr*"))


def test_a_window_and_float32_reach_the_library(item, written, tmp_path):
    box = [written.left + 600, written.top - 3000, written.left + 3000, written.top - 600]
    more = ["--bbox", *map(str, box), "--bbox-crs", "item", "--dtype", "float32", "--format", "cog"]
    assert main([*quick(item, tmp_path / "out"), *more]) == 0
    ds = eosr.open_stac(next((tmp_path / "out").glob("*_eosr.json")))
    assert dict(ds.sizes) == {"time": 1, "y10": 240, "x10": 240}
    assert ds.B05.dtype == np.float32
    assert not (tmp_path / "out" / "sharpened.zarr").exists()


def test_format_zarr_writes_no_cogs(item, tmp_path):
    assert main(quick(item, tmp_path / "out", "--format", "zarr")) == 0
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".zarr"]


def test_a_url_as_folder_is_refused_not_made_a_local_folder(item, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["superresolve"], ["batch"]):
        assert main([*command, item, "s3://bucket/x", "--method", "bicubic"]) == 1
        assert "eosr: s3://bucket/x is a URL; eosr writes to disks only." in capsys.readouterr().err
    ds = eosr.open_stac(item)
    with pytest.raises(OutputError, match=r"s3:/bucket/x is a URL"):
        eosr.to_zarr(ds, Path("s3://bucket/x"))
    assert not list(tmp_path.glob("s3:*"))


def test_a_folder_whose_name_stac_readers_cut_off_is_refused_before_a_pixel_is_made(item, tmp_path, capsys):
    for command in ("superresolve", "batch"):
        assert main([command, item, str(tmp_path / "a#1"), "--method", "bicubic"]) == 1
        assert "has a '#' in its name, and STAC readers cut a path off there. Name" in capsys.readouterr().err
    assert not list(tmp_path.glob("a*"))


def test_a_second_run_is_refused_and_touches_nothing_unless_told_to_overwrite(item, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(quick(item, out)) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(quick(item, out)) == 1
    told = capsys.readouterr().err
    assert "is already there" in told
    assert "--overwrite" in told
    assert len(told.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    assert main(quick(item, out, "--overwrite", "--dtype", "float32")) == 0
    assert xr.open_zarr(out / "sharpened.zarr").B05.dtype == np.float32


def test_a_killed_run_goes_on_where_it_stopped(item, tmp_path):
    out = tmp_path / "out"
    command = quick(item, out, "--chunks", "24", "--format", "zarr", "--threads", "1")
    with subprocess.Popen([sys.executable, "-m", "eosr.cli", *command], env=dict(os.environ)) as running:
        markers = out / "sharpened.zarr.part.done"
        while running.poll() is None and len(list(markers.glob("[0-9]*"))) < 10:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    done = [path.name for path in markers.glob("[0-9]*")]
    assert 10 <= len(done) < 225, "the run was over before it could be killed"
    before = written_at(out / "sharpened.zarr.part", done)

    assert main(command) == 0
    assert written_at(out / "sharpened.zarr", done) == before
    expected = eosr.superresolve(eosr.open_stac(item), method="bicubic", bands=["B05"])
    np.testing.assert_array_equal(xr.open_zarr(out / "sharpened.zarr").B05.values, expected.B05.values)


def test_a_run_that_failed_before_its_first_block_stands_in_nobodys_way(item, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        deliver(breaking(item, blocks=0), out)
    assert (out / ".eosr-delivery.json").is_file()
    assert main(quick(item, out)) == 0
    assert [path.name for path in out.glob(".*")] == []
    assert {"B02", "B05"} <= {*xr.open_zarr(out / "sharpened.zarr").data_vars}


def test_an_unfinished_run_of_something_else_is_refused_with_what_to_type(item, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), dask.config.set(scheduler="synchronous"):
        deliver(breaking(item, blocks=6), out)
    assert main(quick(item, out)) == 1
    told = capsys.readouterr().err
    assert "holds an unfinished run of something else: other bands, window, type or chunks" in told
    assert "dask" not in told
    assert f"add --overwrite to replace it, or name another folder, e.g. {out}-2." in told
    assert main(quick(item, out, "--overwrite")) == 0
    assert [path.name for path in out.glob(".*")] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_here_is_refused_before_anything_is_written(item, tmp_path, capsys):
    assert main(["superresolve", item, str(tmp_path / "out"), "--device", "cuda:7"]) == 1
    assert "device 'cuda:7' is not available here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_of_superresolve_says_order_crs_offsets_and_choices(capsys):
    with pytest.raises(SystemExit):
        main(["superresolve", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "west south east north in degrees of longitude and latitude" in told
    assert "EPSG:4326 (default; longitude, latitude)" in told
    assert "--offset=-1000" in told
    assert "auto (default), cpu, cuda or cuda:N" in told
    assert "study, box, mtf, mtf_diff, or sigma=NUMBER" in told
    assert "--method {bicubic,detail_injection,atprk,supreme,superres_like,eosr,dsen2,s2x,s6x}" in told


def test_the_choices_are_those_of_the_library():
    assert (cli_options.METHODS, cli_options.DEGRADATIONS) == (METHODS, DEGRADATIONS)
    assert cli_options.ALIASES == ALIASES
    assert set(cli_evaluate._ALL) == set(METHODS) - {"bicubic", "dsen2", "s2x", "s6x"}


def test_a_run_that_was_stopped_after_the_zarr_does_not_compute_it_again(item, tmp_path):
    out = tmp_path / "out"
    ds = eosr.superresolve(eosr.open_stac(item), method="bicubic", bands=["B05"])
    deliver(ds, out, format="zarr")
    written_at = (out / "sharpened.zarr" / "zarr.json").stat().st_mtime_ns
    # The state after the Zarr and before the COGs: the store is there, and the marker says so.
    from eosr.write.blocks import fingerprint_of, prepared
    from eosr.write.layout import layers_of

    request = {**fingerprint_of(prepared(ds, layers_of(ds))), "format": "both"}
    (out / ".eosr-delivery.json").write_text(json.dumps({"request": request, "zarr": True, "resumed": False}))
    made = deliver(ds, out)
    assert (out / "sharpened.zarr" / "zarr.json").stat().st_mtime_ns == written_at
    assert len(made.cogs) == len(made.items) == 1


def test_evaluate_prints_an_aligned_table_with_bicubic_beside(item, capsys):
    assert main(["evaluate", item, "--method", "bicubic", "--no-consistency", "--bands", "B05,B11"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 5  # head, rule, two bands, all
    assert len({len(line) for line in lines}) == 1
    assert "RMSE [DN]" in lines[0]


def test_evaluate_prints_json_with_the_same_numbers(item, capsys):
    command = ["evaluate", item, "--method", "bicubic", "--no-consistency", "--bands", "B05", "--degradation", "box"]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    table = eosr.evaluate(eosr.open_stac(item), "bicubic", bands=["B05"], degradation="box")
    wanted = {"band": "B05", "method": "bicubic", "metric": "rmse", "projection": "before", "degradation": "box"}
    rows = [row for row in printed["rows"] if {key: row[key] for key in wanted} == wanted and row["scene"] != "all"]
    (row,) = rows
    assert row["scene"] == "S2A_32TQM_20230601_0_L2A"
    at = {"metric": "rmse", "projection": "before"}
    assert row["value"] == pytest.approx(table.score.loc[at].item())
    assert printed["attrs"]["border"] == "2 coarse pixels"


@pytest.mark.parametrize("name", ["s2sr-20m", "s2sr-60m"])
def test_info_tells_what_shipped_weights_are(name, capsys):
    assert main(["info", name, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    weights = eosr.load_weights(name)
    assert facts["parameters"] == weights.parameters
    assert facts["SHA-256"] == weights.checksum
    assert facts["licence"] == "Apache-2.0"
    assert main(["info", name]) == 0
    printed = capsys.readouterr().out
    assert f"sharpens:                     {', '.join(facts['sharpens'])}" in printed
    unit = {
        "s2sr-20m": "RMSE [DN] (block: part of an image that was trained on)",
        "s2sr-60m": "RMSE relative to bicubic",
    }
    assert f"{unit[name]}:" in printed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--bands", "B99"], "'B99' is not a band of Sentinel-2"),
        (["--degradation", "sigma=abc"], "--degradation sigma=abc holds no number from 0 on. Use e.g. --degradation"),
        (["--degradation", "sigma=-1"], "holds no number from 0 on"),
        (["--degradation", "mft"], "--degradation mft is unknown. Use one of auto, study, box, mtf, mtf_diff, sigma="),
        (["--chunks", "100"], "--chunks 100 is not a multiple of 6"),
        (["--bbox", "-76.1", "37", "-76", "37.1"], "lies outside the scene"),
        (["--offset", "lots"], "--offset lots is no policy"),
        (["--threads", "0"], "--threads 0 cannot work"),
        (["--tile", "18SVG"], "no item of tile '18SVG'"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_1(item, tmp_path, capsys, change, told):
    assert main([*quick(item, tmp_path / "out"), *change]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("eosr: ")
    assert told in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("or with small='mirror'.", "or with --small mirror."),
        ("name other bands=..., please", "name other --bands ..., please"),
        ("Say one: offset=-1000.", "Say one: --offset=-1000."),
        ("or less, e.g. border=0.", "or less, e.g. --border 0."),
        ("Use e.g. query=['eo:cloud_cover<10'].", "Use e.g. --query 'eo:cloud_cover<10'."),
        ("Name bands=['B05', 'B06'].", "Name --bands B05,B06."),
        ("Choose e.g. bbox=(0, 1.5, 2, 3), bbox_crs='item'.", "Choose e.g. --bbox 0 1.5 2 3 --bbox-crs item."),
        ("Pass overwrite=True, or", "Pass --overwrite, or"),
        ("add --overwrite (overwrite=True) or", "add --overwrite or"),
        ("say so: --bbox-crs item (bbox_crs='item'), or", "say so: --bbox-crs item, or"),
        # What is Python, no option, or an option already, stays.
        ("Use open_stac(source, bbox=..., bbox_crs='item').", "Use open_stac(source, bbox=..., bbox_crs='item')."),
        ("Set ds.attrs['level'] if tile=x.", "Set ds.attrs['level'] if tile=x."),
        ("Use consistency=False or dims=('y',).", "Use consistency=False or dims=('y',)."),
        ("Type --offset=-1000 or --weights dsen2=a.pt.", "Type --offset=-1000 or --weights dsen2=a.pt."),
    ],
)  # fmt: skip
def test_messages_of_the_library_name_the_option_to_type(message, line):
    options = ["--small", "--bands", "--offset", "--border", "--query", "--bbox", "--bbox-crs", "--overwrite", "--tile",
               "--weights"]  # fmt: skip
    assert cli_options.typed(message, options) == line


def test_the_other_name_of_a_method_is_understood(item, tmp_path):
    out = tmp_path / "out"
    command = ["superresolve", item, str(out), "--bands", "B05", "--format", "zarr", "--quiet"]
    assert main([*command, "--method", "superres"]) == 0
    (store,) = out.glob("*.zarr")
    assert "superres_like" in (store / "zarr.json").read_text()


def test_a_text_file_as_weights_and_a_missing_source_are_one_line_too(item, tmp_path, capsys):
    (tmp_path / "notes.safetensors").write_text("not weights")
    assert main(["info", str(tmp_path / "notes.safetensors")]) == 1
    assert "is no weights file of eosr" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "none.json")]) == 1
    assert "none.json: " in capsys.readouterr().err


def test_an_error_that_is_not_of_eosr_keeps_its_traceback(item, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("eosr.open.stac.open_stac", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        main(quick(item, tmp_path / "out"))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["superresolve", "a", "b", "--metod", "bicubic"], "unknown option --metod; did you mean --method?"),
        (["superresolve", "a", "b", "--overwrit"], "unknown option --overwrit; did you mean --overwrite?"),
        (["evaluate", "a", "--consistancy=no"], "unknown option --consistancy; did you mean --no-consistency?"),
        (["evaluate", "a", "b"], "unknown argument b"),
        (["superresolve", "a", "b", "--format", "cogs"], "did you mean cog?"),
        (["superresolve", "a", "b", "--method", "bicubik"], "did you mean bicubic?"),
        (["superresolve", "a", "b", "--device", "gpu"], "'gpu' is no device; use auto, cpu, cuda or cuda:N"),
        (["evaluate", "a", "--device", "cuda:x"], "'cuda:x' is no device"),
        (["superresolv", "a", "b"], "did you mean superresolve?"),
    ],
)
def test_a_mistyped_option_is_answered_with_the_nearest_one(capsys, command, told):
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert "usage: eosr" in printed


def test_help_names_every_command_with_examples_and_needs_no_torch():
    script = (
        "import sys\nfrom eosr.cli.entry import main\ntry:\n    main(['--help'])\nexcept SystemExit as stopped:\n"
        "    assert stopped.code == 0\nassert 'torch' not in sys.modules\nassert 'matplotlib' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for command in ("superresolve", "evaluate", "info", "demo"):
        assert f"  eosr {command} " in told
    assert max(map(len, told.splitlines())) <= 120


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"eosr {eosr.__version__}\n"


def test_a_window_of_nodata_only_is_refused_before_anything_is_written(tmp_path, capsys):
    empty = write_scene(tmp_path / "empty", size=180, hole=slice(0, 30))
    path = tmp_path / "item.json"
    path.write_text(json.dumps(empty.item()))
    assert main(quick(str(path), tmp_path / "out")) == 1
    assert "holds nothing but nodata" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_offset_that_the_pixels_contradict_is_refused_until_it_is_said(tmp_path, capsys):
    """Earth Search: items that say boa_offset_applied false, whose pixels have it taken out."""
    path, scene = tmp_path / "item.json", write_scene(tmp_path / "taken", size=180)
    water = scene.pixels["B12"] - 1000
    write_cog(scene.folder / "B12.tif", np.maximum(water, 60), Affine(20, 0, scene.left, 0, -20, scene.top))
    stated = {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False}
    path.write_text(json.dumps(scene.item(**stated)))
    assert main(quick(str(path), tmp_path / "out")) == 1
    told = capsys.readouterr().err
    assert "an offset of -1000 is recorded" in told
    assert "with --offset 0, or with --offset=-1000 if" in told
    assert not (tmp_path / "out").exists()
    assert main(quick(str(path), tmp_path / "out", "--offset", "0", "--format", "cog")) == 0


def test_options_of_a_method_are_read_as_numbers_and_words_and_reach_the_product(item, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["superresolve", item, str(out), "--bands", "B05", "--format", "zarr", "--quiet"]
    assert main([*command, "--method", "atprk", "--option", "psf=published", "--option", "scheme=selected"]) == 0
    (store,) = out.glob("*.zarr")
    assert "atprk(scheme='selected', psf='published')" in (store / "zarr.json").read_text()
    capsys.readouterr()
    for option, told in (("psf", "--option psf is no KEY=VALUE. Use e.g."), ("blur=2", "atprk has no option blur")):
        assert main([*command, "--overwrite", "--method", "atprk", "--option", option]) == 1
        assert told in capsys.readouterr().err


def test_info_tells_what_a_method_needs(capsys):
    assert main(["info", "atprk", "--json"]) == 0
    twenty, sixty = json.loads(capsys.readouterr().out)
    assert (twenty["factor"], sixty["factor"], twenty["needs the whole scene"]) == (2, 6, True)
    assert main(["info", "superres"]) == 0
    assert "superres_like" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "said"), [
    ("eosr", ["s2sr-20m, shipped", "s2sr-60m, shipped"]),
    ("dsen2", ["remote-sensing-processor 0.1 (hdf5) and 0.2.2 (TorchScript)"] * 2),
    ("s2x", ["Train it with eosr-train"]),
    ("s6x", ["Train it with eosr-train"]),
])  # fmt: skip
def test_info_tells_where_the_weights_of_a_method_are(name, said, capsys):
    assert main(["info", name, "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    for facts, where in zip(groups, said, strict=True):
        assert where in facts["weights"]
        assert facts["needs the whole scene"] is False
    assert main(["info", name]) == 0
    printed = capsys.readouterr().out
    for facts in groups:
        assert f"sharpens:                     {', '.join(facts['sharpens'])}" in printed
        assert f"reach [10 m pixels]:          {facts['reach [10 m pixels]']}" in printed


def test_an_option_of_the_60_m_bands_can_be_told_on_the_command_line(item, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["superresolve", item, str(out), "--bands", "B05,B01", "--format", "zarr", "--quiet"]
    assert main([*command, "--method", "superres_like", "--option", "through_20m=true"]) == 0
    (store,) = out.glob("*.zarr")
    written = xr.open_zarr(store).attrs["sharpening_methods"]
    assert written == ["superres_like", "superres_like(through_20m=True)"]
    for option, told in (
        ("through_20m=yes", "superres_like got through_20m='yes'. Use True or False."),
        ("ridge=x", "superres_like got ridge='x'. Use a small positive share, e.g. ridge=0.01."),
        ("rounds=true", "superres_like got rounds=True. Use a whole number from 0 on."),
    ):
        assert main([*command, "--overwrite", "--method", "superres_like", "--option", option]) == 1
        assert capsys.readouterr().err == f"eosr: {told}\n"


ODD = "a\x1b[2J\x1b]0;title\x07\u202eb\r\x9b31m"


def test_names_from_outside_reach_the_terminal_without_escape_sequences(written, tmp_path, capsys):
    """In an error, in what a weights file says of itself, and in the address of a file."""
    odd = written.item(ident=ODD)
    odd["assets"].pop("B05")
    item = tmp_path / "item.json"
    item.write_text(json.dumps(odd))
    assert main(["superresolve", str(item), str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "item a\\x1b[2J\\x1b]0;title\\x07\\u202eb\\r\\x9b31m has no asset" in told.err
    assert main(["superresolve", f"http://127.0.0.1:9/{ODD}", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert printable(told.err) == told.err


def test_what_a_weights_file_says_of_itself_is_printed_without_escape_sequences(tmp_path, capsys):
    from eosr.nn.weights import load_weights, save_weights

    path = save_weights(replace(load_weights("s2sr-20m"), name=ODD), tmp_path / "odd.safetensors")
    assert main(["info", str(path)]) == 0
    told = capsys.readouterr().out
    assert "\\x1b[2J" in told
    assert printable(told) == told
