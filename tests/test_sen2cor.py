"""Sen2Cor cannot be had here: a program that behaves like it stands for it, in every way it can go wrong."""

import json
import stat
import time

import pytest

from eosr.errors import MissingExtraError, OutputError, SourceError
from eosr.sen2cor import find_sen2cor, run_sen2cor

PRODUCT = "S2A_MSIL1C_20230601T101559_N0509_R065_T32TQM_20230601T121212.SAFE"
MADE = "S2A_MSIL2A_20230601T101559_N9999_R065_T32TQM_20240101T000000"
#: What it prints for --help, and what it does with a product.
STAND_IN = """#!/bin/sh
if [ "$1" = --help ]; then
  echo "usage: L2A_Process [-h] [--output_dir OUTPUT_DIR] [--resolution {{10,20,60}}] input_dir"
  echo "Sentinel-2 Level 2A Processor (Sen2Cor). Version: {version}, created: 2022.11.09"
  exit 0
fi
{body}
"""
WORKS = f'echo "$@"; echo "$@" > "$2/arguments"; mkdir -p "$2/{MADE}.SAFE/GRANULE"; echo "Progress[%]: 100.00"'


@pytest.fixture
def install(tmp_path):
    def made(body=WORKS, version="02.11.00"):
        program = tmp_path / "Sen2Cor" / "bin" / "L2A_Process"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(STAND_IN.format(version=version, body=body))
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        return program

    return made


@pytest.fixture
def product(tmp_path):
    folder = tmp_path / PRODUCT
    folder.mkdir()
    (folder / "MTD_MSIL1C.xml").write_text("<a/>")
    return folder


@pytest.mark.parametrize("how", ["program", "folder", "variable", "path"])
def test_it_is_found_where_it_may_be(how, install):
    program = install()
    home = program.parents[1]
    found = {
        "program": lambda: find_sen2cor(program, environ={}),
        "folder": lambda: find_sen2cor(home, environ={}),
        "variable": lambda: find_sen2cor(environ={"SEN2COR_HOME": str(home)}),
        "path": lambda: find_sen2cor(environ={"PATH": str(program.parent)}),
    }[how]()
    assert (found.path, found.version, found.name) == (program, (2, 11, 0), "Sen2Cor 2.11.0")


def test_what_is_not_installed_is_refused_with_where_to_get_it(tmp_path):
    said = r"Sen2Cor is not installed: no L2A_Process on the PATH\. Get Sen2Cor from ESA .* set SEN2COR_HOME"
    with pytest.raises(MissingExtraError, match=said):
        find_sen2cor(environ={"PATH": str(tmp_path)})
    with pytest.raises(MissingExtraError, match=r"there is no L2A_Process in "):
        find_sen2cor(tmp_path, environ={})


def test_a_program_that_is_no_sen2cor_is_refused(install):
    program = install()
    program.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(SourceError, match="does not tell its version, so it is no Sen2Cor"):
        find_sen2cor(program)


def test_a_product_is_made_recorded_and_not_made_twice(install, product, tmp_path):
    sen2cor = find_sen2cor(install())
    made = run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor, resolution=10)
    assert made == tmp_path / "out" / f"{MADE}.SAFE"
    assert (made / "GRANULE").is_dir()
    record = json.loads((tmp_path / "out" / f"{MADE}.json").read_text())
    assert (record["made_by"], record["from"]) == ("Sen2Cor 2.11.0", PRODUCT)
    log = (tmp_path / "out" / f"{PRODUCT.replace('L1C', 'L2A').removesuffix('.SAFE')}.log").read_text()
    assert f"--resolution 10 {product}" in log
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".SAFE", ".json", ".log"]
    install("exit 7")
    assert run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor) == made


@pytest.mark.parametrize(("version", "fine"), [("02.09.00", False), ("02.10.01", True), ("2.12.0", True)])
def test_a_version_too_old_for_the_baseline_is_refused(version, fine, install, product, tmp_path):
    sen2cor = find_sen2cor(install(version=version))
    if fine:
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)
        return
    with pytest.raises(
        SourceError, match=r"Sen2Cor 2\.9\.0 is too old .* processing baseline 05\.09 needs 2\.10 or newer"
    ):
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)
    old = product.with_name(PRODUCT.replace("N0509", "N0206"))
    product.rename(old)
    assert run_sen2cor(old, tmp_path / "out", sen2cor=sen2cor).is_dir()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo first; echo 'no DEM there' >&2; exit 3", r"failed with status 3: no DEM there\. Its log is .*\.log"),
        ("exit 3", "failed with status 3: no words"),
        (f"mkdir -p $2/{MADE}.SAFE; kill -9 $$", "failed with status -9"),
        ("true", "ended well but made 0 products"),
    ],
)
def test_a_failure_is_told_and_leaves_no_product(body, said, install, product, tmp_path):
    sen2cor = find_sen2cor(install(body))
    with pytest.raises(SourceError, match=said):
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)
    assert not list((tmp_path / "out").glob("*.SAFE"))
    install()
    assert run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor).is_dir(), "the same call goes on"


def test_one_that_hangs_is_stopped_with_its_children(install, product, tmp_path):
    sen2cor = find_sen2cor(install(f"(sleep 3; touch {tmp_path}/late) & sleep 60"))
    with pytest.raises(SourceError, match=r"took more than 1 s\. Give a larger timeout"):
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor, timeout=1)
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_what_is_no_l1c_product_and_a_folder_that_cannot_be_written_are_refused(install, product, tmp_path):
    sen2cor = find_sen2cor(install())
    with pytest.raises(SourceError, match=r"is no L1C product\. Name an unpacked folder"):
        run_sen2cor(tmp_path / MADE, tmp_path / "out", sen2cor=sen2cor)
    (product / "MTD_MSIL1C.xml").unlink()
    with pytest.raises(SourceError, match="is no L1C product"):
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)
    (product / "MTD_MSIL1C.xml").touch()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file cannot be written: .* Name another folder\."):
        run_sen2cor(product, tmp_path / "file", sen2cor=sen2cor)
