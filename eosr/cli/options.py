"""What the commands of `eosr` share: a parser that helps, the options of a scene, and opening it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any, Final

from eosr.cli.commands import Parser, nearest
from eosr.errors import EosrError

#: `eosr.sharpen.METHODS` and `eosr.cube.degradation.DEGRADATIONS`, not imported here: --help answers at once.
METHODS: Final = (
    "bicubic", "detail_injection", "atprk", "supreme", "superres_like", "eosr", "dsen2", "s2x", "s6x",
)  # fmt: skip
DEGRADATIONS: Final = ("study", "box", "mtf", "mtf_diff")
ALIASES: Final = {"superres": "superres_like"}
_SOURCE: Final = (
    "URL of a STAC API; path or URL of a catalogue or an item; but for batch also one product, SAFE (folder or zip) or "
    "EOPF Zarr"
)
#: Options that choose among items, or say how files of STAC are read: of no use for one product.
_OF_STAC: Final = ("collection", "datetime", "query", "max_cloud_cover", "tile", "alternate", "limit")
#: An argument of the library as its messages name it, ``small='mirror'`` or ``bands=...``; not within other words.
_ARGUMENT: Final = re.compile(
    r"(?<![\w.=\-'\"{\[])(?P<name>[a-z_]+)=(?P<value>'[^']*'|\[[^\[\]]*\]|\([^()]*\)|\.\.\.|-?\d+(?:\.\d+)?|True)(?![\w(])"
)
#: An option with the argument of the same meaning in brackets: the command line needs the option alone.
_TWICE: Final = re.compile(r"(--[a-z-]+(?: [^\s(]+)?) \([a-z_]+=[^()]*\)")


def source_options(command: Parser) -> None:
    """Options that say which scene is meant and how it is read."""
    command.add_argument("source", metavar="SOURCE", help=_SOURCE)
    group = command.add_argument_group("which scene")
    group.add_argument(
        "--bbox", nargs=4, type=float, metavar=("LEFT", "BOTTOM", "RIGHT", "TOP"),
        help="window: west south east north in degrees of longitude and latitude, unless --bbox-crs says otherwise",
    )  # fmt: skip
    group.add_argument(
        "--bbox-crs", default="EPSG:4326", metavar="CRS",
        help="CRS of --bbox: EPSG:4326 (default; longitude, latitude), 'item' (the scene's own: UTM metres), or EPSG:N",
    )  # fmt: skip
    group.add_argument("--datetime", metavar="WHEN", help="2023-06, or 2023-06-01/2023-06-30")
    group.add_argument("--collection", metavar="ID", help="e.g. sentinel-2-c1-l2a")
    group.add_argument("--query", action="append", metavar="TEXT", help="e.g. 'eo:cloud_cover<10'; may be repeated")
    group.add_argument("--max-cloud-cover", type=float, metavar="PERCENT", help="0 to 100")
    group.add_argument("--tile", metavar="MGRS", help="e.g. 32TQM, where several tiles are found")
    reading = command.add_argument_group("how it is read")
    reading.add_argument(
        "--chunks",
        type=int,
        metavar="PIXELS",
        help="side of a chunk [10 m pixels]; default 1536, in a batch of whole tiles 2748",
    )
    reading.add_argument(
        "--offset", default="auto", metavar="DN",
        help="radiometric offset to add to the digital numbers: auto (default: what the item says), none, or a "
        "whole number, e.g. --offset=-1000; it is recorded, the digital numbers stay",
    )  # fmt: skip
    reading.add_argument("--alternate", metavar="NAME", help="which alternate hrefs to read, e.g. https")
    reading.add_argument(
        "--timeout", type=float, metavar="S", help="longest wait for a server of STAC or EOPF Zarr; default 60"
    )
    reading.add_argument(
        "--limit",
        action="append",
        metavar="NAME=NUMBER",
        help="what a search may fetch: requests=5000 (default), items, depth, megabytes, seconds; may be repeated",
    )
    reading.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",")]


def device(text: str) -> str:
    """Check the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; use auto, cpu, cuda or cuda:N, e.g. cuda:0")
    return text


def open_source(options: argparse.Namespace) -> Any:
    """Open the scene that the options describe, and hold its offset against its darkest pixels unless it is given.

    The library is imported here, so that --help answers at once.
    """
    from eosr.cube.radiometry import check_offset
    from eosr.open.entry import opener_of

    if options.threads is not None:
        import dask

        if options.threads < 1:
            raise EosrError(f"--threads {options.threads} cannot work. Use 1 or more, e.g. --threads 2.")
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read by torch, which is not imported yet
        dask.config.set(num_workers=options.threads)
    opener = opener_of(options.source)
    ds = _open_product(opener, options) if opener else _open_items(options)
    if options.offset == "auto":
        check_offset(ds)
    return ds


def _open_items(options: argparse.Namespace) -> Any:
    from eosr.open.stac import open_stac

    return open_stac(
        options.source, collection=options.collection, bbox=options.bbox, bbox_crs=options.bbox_crs,
        datetime=options.datetime, query=options.query, max_cloud_cover=options.max_cloud_cover, tile=options.tile,
        chunks=options.chunks, offset=options.offset, alternate=options.alternate,
        **waiting(options),
    )  # fmt: skip


def waiting(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `eosr.open.find_items` that say how long and how much a search may take."""
    from eosr.open.catalogue.web import Limits

    given = pairs("--limit", options.limit or [], "requests=10000")
    known = list(vars(Limits()))
    if wrong := [name for name in given if name not in known]:
        raise EosrError(f"--limit {wrong[0]} is unknown. Use one of {', '.join(known)}, e.g. --limit requests=10000.")
    return {**_timeout(options), **({"limits": Limits(**given)} if given else {})}


def _timeout(options: argparse.Namespace) -> dict[str, float]:
    return {} if options.timeout is None else {"timeout": options.timeout}


def pairs(option: str, texts: Sequence[str], example: str) -> dict[str, Any]:
    """What an option says that takes ``KEY=VALUE`` and may be repeated.

    Raises
    ------
    EosrError
        If a text has no key or no value.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key):
            raise EosrError(f"{option} {text} is no KEY=VALUE. Use e.g. {option} {example}.")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _open_product(opener: str, options: argparse.Namespace) -> Any:
    """Open a SAFE or an EOPF product, which is one scene."""
    import eosr.open

    of_stac = (*_OF_STAC, *(["timeout"] if opener == "open_safe" else []))
    idle = [name for name in of_stac if getattr(options, name) is not None]
    if idle:
        raise EosrError(
            f"{options.source} is one product, so --{idle[0].replace('_', '-')} has no meaning. Leave it out."
        )
    return getattr(eosr.open, opener)(
        options.source, chunks=options.chunks, offset=options.offset, bbox=options.bbox, bbox_crs=options.bbox_crs,
        **_timeout(options),
    )  # fmt: skip


def method_name(text: str) -> str:
    """Name of a method in full."""
    return ALIASES.get(text, text)


def typed(message: str, options: Sequence[str]) -> str:
    """Return a message of the library with its arguments as they are typed, e.g. ``--small mirror``.

    Parameters
    ----------
    message : str
        Of an `EosrError`.
    options : sequence of str
        Those that the command has, e.g. ``--small``. What is none of them stays.
    """

    def as_option(found: re.Match[str]) -> str:
        option = "--" + found["name"].replace("_", "-")
        # Within a call, as in eosr.open_stac(source, bbox=...), Python is meant.
        if option not in options or re.search(r"\w\([^()]*$", message[: found.start()]):
            return found[0]
        value = found["value"]
        if value == "True":
            return option
        if value[0] in "[(":
            parts = [shlex.quote(part.strip().strip("'")) for part in value[1:-1].split(",") if part.strip()]
            return f"{option} {(' ' if value[0] == '(' else ',').join(parts)}"
        return option + ("=" if value.startswith("-") else " ") + shlex.quote(value.strip("'"))

    message = re.sub(r"limits=eosr\.open\.Limits\((\w+=\d+)\)", r"--limit \1", message)
    return _ARGUMENT.sub(as_option, _TWICE.sub(r"\1", message)).replace(", --bbox-crs ", " --bbox-crs ")


def check_degradation(name: str | None, *known: str) -> None:
    """Refuse a blur before anything is opened; a number after ``sigma=`` is one, where the command takes it."""
    if name is None or name in known:
        return
    free = "sigma=NUMBER" in known
    if free and name.startswith("sigma="):
        with contextlib.suppress(ValueError):
            if 0 <= float(name.removeprefix("sigma=")) < float("inf"):
                return
        raise EosrError(f"--degradation {name} holds no number from 0 on. Use e.g. --degradation sigma=0.5.")
    hint = nearest(name, known) or "."
    raise EosrError(f"--degradation {name} is unknown. Use one of {', '.join(known)}{hint}")


def check_device(options: argparse.Namespace) -> None:
    """Refuse a device that is not here before anything is written."""
    if options.device != "auto" and options.method is None:
        from eosr.nn.tile import resolve_device

        resolve_device(options.device)
