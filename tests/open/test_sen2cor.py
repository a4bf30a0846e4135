"""Sen2Cor cannot be had here: a program that behaves like it stands for it, in every way it can go wrong."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from eosr.errors import MissingExtraError, OutputError, SourceError
from eosr.open.sen2cor import find_sen2cor, run_sen2cor

PRODUCT = "S2A_MSIL1C_20230601T101559_N0509_R065_T32TQM_20230601T121212.SAFE"
MADE = "S2A_MSIL2A_20230601T101559_N9999_R065_T32TQM_20240101T000000"
#: What it prints for --help, and what it does with a product.
STAND_IN = """#!/bin/sh
if [ "$1" = --help ]; then
  echo "usage: L2A_Process [-h] [--output_dir OUTPUT_DIR] [--resolution {{10,20,60}}] input_dir"
  echo
  echo "Sentinel-2 Level 2A Processor (Sen2Cor). Version: {version}, created: 2022.11.09,"
  echo "supporting Level-1C product version 14.2 - 15.0."
  exit 0
fi
{body}
"""
WORKS = (
    f'echo "$@"; echo "$@" > "$2/arguments"; mkdir -p "$2/{MADE}.SAFE/GRANULE"; touch "$2/{MADE}.SAFE/MTD_MSIL2A.xml"; '
    'echo "Progress[%]: 100.00"'
)


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


@pytest.mark.parametrize("how", ["program", "folder", "bin", "variable", "home", "path", "path beside settings"])
def test_it_is_found_where_it_may_be(how, install):
    program = install()
    home = program.parents[1]
    found = {
        "program": lambda: find_sen2cor(program, environ={}),
        "folder": lambda: find_sen2cor(home, environ={}),
        "bin": lambda: find_sen2cor(home / "bin", environ={}),
        "variable": lambda: find_sen2cor(environ={"EOSR_SEN2COR": str(home), "SEN2COR_HOME": "/none"}),
        "home": lambda: find_sen2cor(environ={"SEN2COR_HOME": str(home)}),
        "path": lambda: find_sen2cor(environ={"PATH": str(program.parent)}),
        # Sen2Cor's own installer names the folder of the user's settings so: it holds no program.
        "path beside settings": lambda: find_sen2cor(
            environ={"PATH": str(program.parent), "SEN2COR_HOME": str(program.parents[2])}
        ),
    }[how]()
    assert (found.path, found.version, found.name) == (program, (2, 11, 0), "Sen2Cor 2.11.0")


def test_what_is_not_installed_is_refused_with_where_to_get_it(tmp_path):
    said = (
        r"Sen2Cor is not installed: no L2A_Process on the PATH\. Get Sen2Cor from ESA \(https://step\.esa\.int.* "
        r"set EOSR_SEN2COR to its folder: export EOSR_SEN2COR="
    )
    for environ in ({"PATH": str(tmp_path)}, {}, {"SEN2COR_HOME": str(tmp_path)}):
        with pytest.raises(MissingExtraError, match=said):
            find_sen2cor(environ=environ)
    with pytest.raises(MissingExtraError, match=r"there is no L2A_Process in "):
        find_sen2cor(tmp_path, environ={})
    with pytest.raises(MissingExtraError, match=r"there is no L2A_Process in /none\. Get Sen2Cor"):
        find_sen2cor(environ={"EOSR_SEN2COR": "/none", "PATH": str(tmp_path)})


def test_what_is_asked_for_by_eosr_is_what_the_environment_holds(install, monkeypatch):
    monkeypatch.setenv("EOSR_SEN2COR", str(install().parents[1]))
    assert find_sen2cor().name == "Sen2Cor 2.11.0"


def test_a_program_that_is_no_sen2cor_is_refused(install):
    program = install()
    program.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(SourceError, match="does not tell its version, so it is no Sen2Cor"):
        find_sen2cor(program)
    program.chmod(0o644)
    with pytest.raises(SourceError, match=r"L2A_Process cannot be run: Permission denied\. Install Sen2Cor again"):
        find_sen2cor(program)


def test_a_program_that_went_away_is_refused(install, product, tmp_path):
    program = install()
    sen2cor = find_sen2cor(program)
    program.unlink()
    with pytest.raises(SourceError, match="L2A_Process cannot be run: No such file or directory"):
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)


def test_a_product_is_made_recorded_and_not_made_twice(install, product, tmp_path):
    sen2cor = find_sen2cor(install())
    made = run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)
    assert made == tmp_path / "out" / f"{MADE}.SAFE"
    assert (made / "GRANULE").is_dir()
    record = json.loads((tmp_path / "out" / f"{MADE}.json").read_text())
    assert (record["made_by"], record["from"]) == ("Sen2Cor 2.11.0", PRODUCT)
    assert record["command"][1:] == [
        "--output_dir", str(tmp_path / "out" / (PRODUCT.replace("L1C", "L2A").removesuffix(".SAFE") + ".part")),
        "--resolution", "10", str(product),
    ]  # fmt: skip
    log = (tmp_path / "out" / f"{PRODUCT.replace('L1C', 'L2A').removesuffix('.SAFE')}.log").read_text()
    assert f"--resolution 10 {product}" in log
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".SAFE", ".json", ".log"]
    install("exit 7")
    assert run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor) == made


def test_a_product_of_another_version_is_not_taken_for_this_ones(install, product, tmp_path):
    made = run_sen2cor(product, tmp_path / "out", sen2cor=find_sen2cor(install()))
    newer = find_sen2cor(install(version="02.12.03"))
    with pytest.raises(
        SourceError, match=r"is there already, made by Sen2Cor 2\.11\.0, and Sen2Cor 2\.12\.3 would make other pixels"
    ):
        run_sen2cor(product, tmp_path / "out", sen2cor=newer)
    made.with_suffix(".json").unlink()
    with pytest.raises(SourceError, match=r"made by nobody knows what, for there is no S2A_MSIL2A_.*\.json"):
        run_sen2cor(product, tmp_path / "out", sen2cor=newer)


def test_relative_folders_are_handed_over_as_absolute_ones(install, product, tmp_path, monkeypatch):
    sen2cor = find_sen2cor(install())
    monkeypatch.chdir(tmp_path)
    made = run_sen2cor(PRODUCT, "out", sen2cor=sen2cor, resolution=20)
    command = json.loads(made.with_suffix(".json").read_text())["command"]
    assert [command[2].startswith(str(tmp_path)), command[4], command[5]] == [True, "20", str(product)]


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
        ("echo 'no memory.'", r"ended well but made 0 products of S2A_MSIL1C_.*: no memory\. Its log is"),
        (f"mkdir -p $2/{MADE}.SAFE", "ended well but made no whole product"),
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
    with pytest.raises(SourceError, match=r"took more than 1 s, and said last: no words\. Give a larger timeout"):
        run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor, timeout=1)
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_if_eosr_is_killed_no_second_run_begins_beside_the_first(install, product, tmp_path):
    """What was begun goes on without its parent; the lock on the log is its own too."""
    sen2cor = find_sen2cor(
        install(f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60")
    )
    code = (
        "import sys; from eosr.open.sen2cor import find_sen2cor, run_sen2cor; "
        "run_sen2cor(sys.argv[1], sys.argv[2], sen2cor=find_sen2cor(sys.argv[3]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, product, tmp_path / "out", sen2cor.path])
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    orphan = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    install()
    try:
        with pytest.raises(SourceError, match=r"another run is at work on S2A_MSIL1C_.*\. Wait for it, or end it"):
            run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor)
        assert (tmp_path / "out").is_dir()
    finally:
        os.kill(orphan, signal.SIGKILL)
    _wait_for_the_lock(tmp_path / "out")
    assert run_sen2cor(product, tmp_path / "out", sen2cor=sen2cor).is_dir(), "the same call goes on"


def _wait_for_the_lock(folder):
    (log,) = folder.glob("*.log")
    with log.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"resolution": 15}, r"resolution=15 is none of Sen2Cor's\. Give 10, 20 or 60"),
        ({"timeout": 0}, r"timeout=0 is no time to work in\. Give seconds"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, said, install, product, tmp_path):
    with pytest.raises(SourceError, match=said):
        run_sen2cor(product, tmp_path / "out", sen2cor=find_sen2cor(install()), **arguments)
    assert not (tmp_path / "out").exists()


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
