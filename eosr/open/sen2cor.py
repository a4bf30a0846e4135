"""L1C to L2A by an installed Sen2Cor: found, checked, run in a folder of its own, and recorded.

Sen2Cor is ESA's own processor. It is free, not on any package index, and its licence does not let eosr ship it.

Its command line is that of versions 2.8 to 2.11, as its ``--help`` prints it.

References
----------
[1] ESA, "Sen2Cor Configuration and User Manual", S2-PDGS-MPC-L2A-SUM.
[2] ``--help`` of 2.8.0, quoted in https://github.com/ranghetti/sen2r/issues/373.
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
from typing import IO, Final

from eosr.errors import MissingExtraError, OutputError, SourceError
from eosr.host.files import take

#: Name of the program, which lies in the folder ``bin`` of an installation.
PROGRAM: Final = "L2A_Process"
#: Variable that names the folder of an installation. SEN2COR_HOME is Sen2Cor's own: by its installer the folder of the
#: user's settings, by many people's habit that of the installation. It is looked into, and may hold no program.
VARIABLE: Final = "EOSR_SEN2COR"
#: Version that the processing baseline of a product needs: 04.00 brought offsets, which 2.10 understands; 2.8 is the
#: first one that takes ``--output_dir``.
NEEDED: Final = (((4, 0), (2, 10)), ((0, 0), (2, 8)))
RESOLUTIONS: Final = (10, 20, 60)
_GET_IT: Final = (
    "Get Sen2Cor from ESA (https://step.esa.int, Third-party plugins, Sen2Cor; free, under ESA's licence), install it, "
    f"and set {VARIABLE} to its folder: export {VARIABLE}=/path/to/Sen2Cor-02.11.00-Linux64"
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
        Its program ``L2A_Process``, or the folder it was installed to. Default: what the environment variable
        EOSR_SEN2COR names; else SEN2COR_HOME, if the program is there; else the PATH.
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
    given = str(path) if path is not None else environ.get(VARIABLE, "")
    if given:
        program = _program_in(Path(given))
        if program is None:
            raise MissingExtraError(f"there is no {PROGRAM} in {given}. {_GET_IT}.")
    else:
        home = environ.get("SEN2COR_HOME", "")
        program = (_program_in(Path(home)) if home else None) or _program_on(environ.get("PATH", ""))
        if program is None:
            raise MissingExtraError(f"Sen2Cor is not installed: no {PROGRAM} on the PATH. {_GET_IT}.")
    return Sen2Cor(path=program.absolute(), version=_version(program.absolute()))


def _program_on(search: str) -> Path | None:
    # An empty PATH would mean Python's default one to `which`.
    found = shutil.which(PROGRAM, path=search) if search else None
    return None if found is None else Path(found)


def _program_in(given: Path) -> Path | None:
    if given.is_file():
        return given
    return next((one for one in (given / "bin" / PROGRAM, given / PROGRAM) if one.is_file()), None)


def _version(program: Path) -> tuple[int, ...]:
    try:
        asked = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=120, check=False)
        told = asked.stdout + asked.stderr
    except OSError as error:
        raise SourceError(f"{program} cannot be run: {error.strerror}. Install Sen2Cor again.") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{program} --help does not end. Install Sen2Cor again.") from error
    found = re.search(r"[Vv]ersion:?\s*(\d+(?:\.\d+)+)|Sen2Cor[- ]v?(\d+(?:\.\d+)+)", told)
    if found is None:
        raise SourceError(f"{program} does not tell its version, so it is no Sen2Cor. {_GET_IT}.")
    return tuple(int(part) for part in (found[1] or found[2]).split("."))


def run_sen2cor(
    product: str | Path,
    out: str | Path,
    *,
    sen2cor: Sen2Cor | None = None,
    resolution: int = 10,
    timeout: float = 7200.0,
) -> Path:
    """Make the L2A product of an L1C product; return its folder.

    Parameters
    ----------
    product : path
        L1C folder ``*.SAFE``.
    out : path
        Folder that the L2A product goes into. One that the same version has made of it before is returned as it is.
    sen2cor : Sen2Cor, optional
        Default: `find_sen2cor`.
    resolution : {10, 20, 60}, optional
        Finest one that Sen2Cor writes [m]. Default: 10, with which it writes all three; left away, it decides itself.
    timeout : float
        Seconds after which it is stopped.

    Raises
    ------
    SourceError
        If the product is no L1C folder, Sen2Cor is too old for it, fails or takes too long (with its last words, and
        where its log is), another run is at work on it, or ``out`` has an L2A product of it that was made otherwise.
    MissingExtraError
        If Sen2Cor is not found.
    OutputError
        If ``out`` cannot be written.

    Notes
    -----
    It works in ``out/NAME.part``; the product gets its place when it is whole. ``NAME.json`` beside it names the
    version: another one makes other pixels. Whoever works on a product holds a lock on its log, Sen2Cor too: if eosr is
    killed and Sen2Cor goes on, no second one begins beside it.
    """
    if resolution not in RESOLUTIONS:
        raise SourceError(f"resolution={resolution} is none of Sen2Cor's. Give 10, 20 or 60.")
    if not timeout > 0:
        raise SourceError(f"timeout={timeout} is no time to work in. Give seconds, e.g. 7200.")
    # Absolute, because Sen2Cor wants its folders so.
    source, folder = Path(product).absolute(), Path(out).absolute()
    name, baseline = _l1c_name(source)
    program = find_sen2cor() if sen2cor is None else sen2cor
    _check_version(program, baseline, source)
    stem = name.replace("_MSIL1C_", "_MSIL2A_")
    work, log = folder / f"{stem}.part", folder / f"{stem}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("a") as written:
            _lock(written, source)
            done = sorted(folder.glob(f"{_same_image(stem)}*.SAFE"))
            if done:
                return _made_alike(done[0], program)
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            written.truncate(0)
            command = [str(program.path), "--output_dir", str(work), "--resolution", str(resolution), str(source)]
            _watched(command, written, timeout, program)
            return _placed(_made_in(work, program, source, log), folder, program, source, command)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}. Name another folder.") from error


def _lock(written: IO[str], source: Path) -> None:
    if not take(written):
        raise SourceError(
            f"another run is at work on {source.name}, with its log in {written.name}. Wait for it, or end it."
        )


def _made_alike(product: Path, program: Sen2Cor) -> Path:
    """Return a product that is there already, if this version has made it."""
    record = product.with_suffix(".json")
    try:
        made_by = str(json.loads(record.read_text())["made_by"])
    except (OSError, ValueError, KeyError, TypeError):
        made_by = f"nobody knows what, for there is no {record.name}"
    if made_by != program.name:
        raise SourceError(
            f"{product} is there already, made by {made_by}, and {program.name} would make other pixels. Move it away, "
            "or name another folder."
        )
    return product


def _made_in(work: Path, program: Sen2Cor, source: Path, log: Path) -> Path:
    made = sorted(work.glob("*_MSIL2A_*.SAFE"))
    if len(made) != 1 or not (made[0] / "MTD_MSIL2A.xml").is_file():
        what = "no whole product" if len(made) == 1 else f"{len(made)} products"
        raise SourceError(
            f"{program.name} ended well but made {what} of {source.name}: {_last_words(log)}. Its log is {log}."
        )
    return made[0]


def _placed(made: Path, folder: Path, program: Sen2Cor, source: Path, command: list[str]) -> Path:
    """Put the record in its place, then the product: none is ever there without the other."""
    target = folder / made.name
    record = made.parent / "record.json.part"
    told = {"made_by": program.name, "program": str(program.path), "from": source.name, "command": command}
    record.write_text(json.dumps(told, indent=1) + "\n")
    os.replace(record, target.with_suffix(".json"))
    os.replace(made, target)
    shutil.rmtree(made.parent, ignore_errors=True)
    return target


def _watched(command: list[str], written: IO[str], timeout: float, program: Sen2Cor) -> None:
    """Run to the end or the time limit; its children end with it."""
    log = Path(written.name)
    try:
        running = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        raise SourceError(f"{program.path} cannot be run: {error.strerror}. Install Sen2Cor again.") from error
    try:
        status = running.wait(timeout)
    except BaseException as error:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise SourceError(
            f"{program.name} took more than {timeout:.0f} s, and said last: {_last_words(log)}. Give a larger timeout, "
            f"or look into {log}."
        ) from None
    if status:
        raise SourceError(f"{program.name} failed with status {status}: {_last_words(log)}. Its log is {log}.")


def _last_words(log: Path) -> str:
    said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return said[-1].rstrip(".") if said else "no words"


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
