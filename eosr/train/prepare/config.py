"""What `eosr-train prepare` makes a store of: one TOML file, every key known, unknown keys refused."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from eosr.errors import TrainingError
from eosr.train.prepare.patches import PHASE, PatchFilter
from eosr.train.settings.config import build_settings


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which scenes are kept out for validation: whole places, never patches."""

    #: ``scene``: the images of a tile stay on one side; ``geography``: those of a cell of `degrees` do.
    by: str = "scene"
    #: Share of the places kept out, at least one where it is above 0.
    validation: float = 0.2
    #: Or their names: scenes whose id contains one of these.
    names: tuple[str, ...] = ()
    #: Side of a cell [degrees].
    degrees: float = 5.0
    #: Largest side of a validation scene; its middle is taken [10 m pixels].
    size: int = 1080


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where scenes come from."""

    #: ``stac``, ``safe`` or ``cube``.
    kind: str
    #: ``safe``, ``cube``: paths, with ``*`` and ``?``. ``stac``: API, catalogue or item files.
    paths: tuple[str, ...]
    #: ``stac``: as in `eosr.open_stac`.
    collection: str = ""
    bbox: tuple[float, ...] = ()
    datetime: str = ""
    tile: str = ""
    max_cloud_cover: float = 100.0
    alternate: str = ""
    #: ``stac``: largest number of items, the least cloudy ones; 0: all.
    limit: int = 0
    #: ``stac``, ``safe``: as in `eosr.open_stac`.
    offset: str = "auto"
    #: ``safe``: folder in which images are kept decoded, as in `eosr.open_safe`.
    stage: str = ""
    #: Whether it is an error that nothing matches.
    needed: bool = True


#: Keys that a kind of source can do without, and so must: a key that does nothing is a mistake.
_ONLY_FOR: Final = {
    "stac": {"collection", "bbox", "datetime", "tile", "max_cloud_cover", "alternate", "limit", "offset"},
    "safe": {"offset", "stage"},
    "cube": set[str](),
}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """One store of training patches."""

    #: Name of the store.
    name: str
    #: Seed of the places and of the split.
    seed: int = 0
    #: Side of the core of a patch, a multiple of 36 [10 m pixels].
    patch: int = 144
    #: Width of the context around it, a multiple of 36 [10 m pixels].
    margin: int = 36
    #: Places drawn per scene; 0: cores side by side all over it.
    per_scene: int = 500
    #: Fewer patches than this in all are an error.
    least: int = 1
    #: Take L1C and L2A scenes into one store.
    mixed_levels: bool = False
    filter: PatchFilter = field(default_factory=PatchFilter)
    split: SplitConfig = field(default_factory=SplitConfig)
    source: tuple[SourceConfig, ...] = ()


#: What a patch nests in: 36 pixels of 10 m are one pixel of 60 m degraded by 6.
NESTED: Final = 6 * PHASE


def load_prepare_config(path: Path) -> PrepareConfig:
    """Read the TOML file of a store.

    Raises
    ------
    TrainingError
        If the file is missing or no TOML, a key is unknown, or a value cannot work.
    """
    try:
        table = tomllib.loads(path.read_text())
    except RecursionError:
        raise TrainingError(f"{path} is nested too deep for a configuration. Correct it.") from None
    except FileNotFoundError:
        raise TrainingError(f"there is no configuration {path}. Name a TOML file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"the configuration {path} cannot be read: {error}. Correct it.") from None
    listed = table.pop("source", [])
    if not isinstance(listed, list) or not listed:
        raise TrainingError(f"{path} names no source of scenes. Add a table [[source]] with kind and paths.")
    nested: dict[str, Any] = {
        "filter": build_settings(PatchFilter, table.pop("filter", {}), f"{path} [filter]"),
        "split": build_settings(SplitConfig, table.pop("split", {}), f"{path} [split]"),
        "source": tuple(
            build_settings(SourceConfig, one, f"{path} [[source]] {number}") for number, one in enumerate(listed, 1)
        ),
    }
    config: PrepareConfig = build_settings(PrepareConfig, table | nested, str(path))
    _check(config, str(path))
    return config


def _check(config: PrepareConfig, where: str) -> None:
    if not config.name or config.name != Path(config.name).name or config.name.startswith("."):
        raise TrainingError(f"{where}: name = {config.name!r} cannot name a folder. Give a word, e.g. 'europe'.")
    for key, value, least in (("patch", config.patch, NESTED), ("margin", config.margin, 0)):
        if value < least or value % NESTED:
            raise TrainingError(
                f"{where}: {key} = {value} is no multiple of {NESTED} pixels of 10 m, so its degraded 60 m pixels "
                f"would not be whole. Give {max(least, round(value / NESTED) * NESTED)}."
            )
    for key in ("per_scene", "seed", "least"):
        if getattr(config, key) < 0:
            raise TrainingError(f"{where}: {key} = {getattr(config, key)} is below 0. Correct that line.")
    shares = {f"[filter] {key}": getattr(config.filter, key) for key in ("nodata", "saturated", "cloud")}
    for key, share in (shares | {"[split] validation": config.split.validation}).items():
        if not 0 <= share <= 1:
            raise TrainingError(f"{where}: {key} = {share} is no share. Give a number from 0 to 1.")
    if config.split.by not in ("scene", "geography"):
        raise TrainingError(f"{where} [split]: by = {config.split.by!r} is unknown. Give 'scene' or 'geography'.")
    if config.split.size < NESTED or not 0 < config.split.degrees <= 90:
        raise TrainingError(f"{where} [split]: size must be {NESTED} or more, degrees above 0 and at most 90.")
    for number, one in enumerate(config.source, 1):
        _check_source(one, f"{where} [[source]] {number}")


def _check_source(source: SourceConfig, where: str) -> None:
    if source.kind not in _ONLY_FOR:
        raise TrainingError(f"{where}: kind = {source.kind!r} is unknown. Give 'stac', 'safe' or 'cube'.")
    if not source.paths:
        raise TrainingError(f"{where}: paths is empty. Name what to open.")
    plain = SourceConfig(kind=source.kind, paths=source.paths)
    given = {one.name for one in fields(source) if getattr(source, one.name) != getattr(plain, one.name)}
    useless = sorted(given - _ONLY_FOR[source.kind] - {"needed"})
    if useless:
        raise TrainingError(f"{where}: kind = {source.kind!r} knows no {', '.join(useless)}. Remove the line.")
    if source.limit < 0:
        raise TrainingError(f"{where}: limit = {source.limit} is below 0. Give 0 for all.")
    if source.offset not in ("auto", "none") and not source.offset.removeprefix("-").isdecimal():
        raise TrainingError(f"{where}: offset = {source.offset!r} is unknown. Give 'auto', 'none' or e.g. '-1000'.")
