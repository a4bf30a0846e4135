"""L1C to L2A by an installed Sen2Cor: found, checked, run in a folder of its own, and recorded.

Sen2Cor is ESA's own processor. It is free, not on any package index, and its licence does not let eosr ship it.

References
----------
[1] ESA, "Sen2Cor Configuration and User Manual", S2-PDGS-MPC-L2A-SUM.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eosr.errors import MissingExtraError, OutputError, SourceError

#: Name of the program, and the folder of it in an installation.
PROGRAM: Final = "L2A_Process"
#: Version that the processing baseline of a product needs: 04.00 brought offsets, which 2.10 understands.
NEEDED: Final = (((4, 0), (2, 10)), ((0, 0), (2, 8)))
_GET_IT: Final = (
    "Get Sen2Cor from ESA (step.esa.int, Toolboxes, Sen2Cor; free), unpack it, and set SEN2COR_HOME to its folder"
)


@dataclass(frozen=True, kw_only=True)
class Sen2Cor:
    """An installed Sen2Cor."""

    path: Path
    #: E.g. ``(2, 11, 0)``.
    version: tuple[int, ...]

    @property
    def name(self) -> str:
        """Version as text, e.g. ``"Sen2Cor 2.11.0"``."""
        return "Sen2Cor " + ".".join(map(str, self.version))


def find_sen2cor(path: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Sen2Cor:
    """Find an installed Sen2Cor and ask it for its version.

    Parameters
    ----------
    path : path, optional
        Its program ``L2A_Process``, or the folder it was unpacked to. Default: the environment variable SEN2COR_HOME,
        then the PATH.
    environ : mapping, optional
        Default: the environment.

    Raises
    ------
    MissingExtraError
        If it is not found; the message says where to get it.
    SourceError
        If what is there does not tell its version.
    """
    environ = os.environ if environ is None else environ
    given = str(path) if path is not None else environ.get("SEN2COR_HOME", "")
    if given:
        program = _program_in(Path(given))
        if program is None:
            raise MissingExtraError(f"there is no {PROGRAM} in {given}. {_GET_IT}.")
    else:
        found = shutil.which(PROGRAM, path=environ.get("PATH"))
        if found is None:
            raise MissingExtraError(f"Sen2Cor is not installed: no {PROGRAM} on the PATH. {_GET_IT}.")
        program = Path(found)
    return Sen2Cor(path=program, version=_version(program))


def _program_in(given: Path) -> Path | None:
    if given.is_file():
        return given
    return next((one for one in (given / "bin" / PROGRAM, given / PROGRAM) if one.is_file()), None)


def _version(program: Path) -> tuple[int, ...]:
    try:
        asked = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=120, check=False)
        told = asked.stdout + asked.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{program} cannot be run: {error}. Install Sen2Cor again.") from error
    found = re.search(r"[Vv]ersion:?\s*(\d+(?:\.\d+)+)|Sen2Cor[- ]v?(\d+(?:\.\d+)+)", told)
    if found is None:
        raise SourceError(f"{program} does not tell its version, so it is no Sen2Cor. {_GET_IT}.")
    return tuple(int(part) for part in (found[1] or found[2]).split("."))


def run_sen2cor(
    product: str | Path,
    out: str | Path,
    *,
    sen2cor: Sen2Cor | None = None,
    resolution: int | None = None,
    timeout: float = 7200.0,
) -> Path:
    """Make the L2A product of an L1C product; return its folder.

    Parameters
    ----------
    product : path
        L1C folder ``*.SAFE``.
    out : path
        Folder that the L2A product goes into. One that is there already is returned as it is.
    sen2cor : Sen2Cor, optional
        Default: `find_sen2cor`.
    resolution : {10, 20, 60}, optional
        Of Sen2Cor. Default: all, which native bands need.
    timeout : float
        Seconds after which it is stopped.

    Raises
    ------
    SourceError
        If the product is no L1C folder, Sen2Cor is too old for it, fails or takes too long; with its last words, and
        where its log is.
    MissingExtraError
        If Sen2Cor is not found.
    OutputError
        If ``out`` cannot be written.

    Notes
    -----
    It works in ``out/NAME.part``; the product gets its place when it is whole. ``NAME.json`` beside it names the
    version: another one makes other pixels.
    """
    source, folder = Path(product), Path(out)
    name, baseline = _l1c_name(source)
    program = find_sen2cor() if sen2cor is None else sen2cor
    _check_version(program, baseline, source)
    stem = name.replace("_MSIL1C_", "_MSIL2A_")
    done = sorted(folder.glob(f"{_same_image(stem)}*.SAFE"))
    if done:
        return done[0]
    work, log = folder / f"{stem}.part", folder / f"{stem}.log"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}. Name another folder.") from error
    command = [str(program.path), "--output_dir", str(work)]
    command += [] if resolution is None else ["--resolution", str(resolution)]
    _watched([*command, str(source)], log, timeout, program)
    made = sorted(work.glob("*_MSIL2A_*.SAFE"))
    if len(made) != 1:
        raise SourceError(f"{program.name} ended well but made {len(made)} products of {source}. See {log}.")
    target = folder / made[0].name
    os.replace(made[0], target)
    (folder / f"{target.stem}.json").write_text(
        json.dumps({"made_by": program.name, "from": source.name, "command": command[1:]}, indent=1)
    )
    shutil.rmtree(work, ignore_errors=True)
    return target


def _watched(command: list[str], log: Path, timeout: float, program: Sen2Cor) -> None:
    """Run to the end or the time limit; its children end with it."""
    with log.open("w") as written:
        running = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = running.wait(timeout)
        except BaseException as error:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise SourceError(
                f"{program.name} took more than {timeout:.0f} s. Give a larger timeout, or look into {log}."
            ) from None
    if status:
        said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise SourceError(
            f"{program.name} failed with status {status}: {said[-1] if said else 'no words'}. Its log is {log}."
        )


def _l1c_name(source: Path) -> tuple[str, tuple[int, int]]:
    found = re.match(r"(S2._MSIL1C_\d{8}T\d{6}_N(\d\d)(\d\d)_R\d{3}_T\w{5}_\d{8}T\d{6})\.SAFE$", source.name)
    if found is None or not (source / "MTD_MSIL1C.xml").is_file():
        raise SourceError(
            f"{source} is no L1C product. Name an unpacked folder S2?_MSIL1C_..._N...SAFE with MTD_MSIL1C.xml in it."
        )
    return found[1], (int(found[2]), int(found[3]))


def _same_image(stem: str) -> str:
    """Pattern of the names that the L2A product of an image may have: its own time stamp and baseline are Sen2Cor's."""
    parts = stem.split("_")
    return "_".join([*parts[:3], "N*", *parts[4:6], ""])


def _check_version(program: Sen2Cor, baseline: tuple[int, int], source: Path) -> None:
    needed = next(version for since, version in NEEDED if baseline >= since)
    if program.version[: len(needed)] < needed:
        raise SourceError(
            f"{program.name} is too old for {source.name}, whose processing baseline "
            f"{baseline[0]:02d}.{baseline[1]:02d} needs {'.'.join(map(str, needed))} or newer. {_GET_IT}."
        )
