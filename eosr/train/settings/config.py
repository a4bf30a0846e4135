"""What a training run is: one TOML file, every key known, unknown keys refused."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from eosr.errors import TrainingError
from eosr.nn.generator import BackProjectionGenerator
from eosr.nn.kinds import config_type
from eosr.train.data.windows import WindowConfig
from eosr.train.settings.checks import check_config
from eosr.train.settings.schema import AdversarialConfig, TrainConfig, ValidationConfig

__all__ = ["TrainConfig", "load_config"]

#: Tables beside ``[generator]``, and what they are built to.
_TABLES: Final[dict[str, Any]] = {
    "window": WindowConfig, "validation": ValidationConfig, "adversarial": AdversarialConfig,
}  # fmt: skip


def load_config(path: Path) -> TrainConfig:
    """Read a run's TOML file.

    Raises
    ------
    TrainingError
        If the file is missing or no TOML, a key is unknown (the message lists the known ones), a value is of another
        type, or two values contradict each other.
    """
    try:
        table = tomllib.loads(path.read_text())
    except RecursionError:
        raise TrainingError(f"{path} is nested too deep for a configuration. Correct it.") from None
    except FileNotFoundError:
        raise TrainingError(f"there is no configuration {path}. Name a TOML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the configuration {path} cannot be read: {error}. Name a TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{path} is not valid TOML: {error}. Correct that line.") from None
    if "kind" in table:
        raise TrainingError(f"{path}: kind stands above the tables. Write it below [generator].")
    kind, shape = _kind_of(table.pop("generator", {}), f"{path} [generator]")
    nested = {
        "kind": kind,
        "generator": build_settings(config_type(kind), shape, f"{path} [generator]"),
        **{key: build_settings(part, table.pop(key, {}), f"{path} [{key}]") for key, part in _TABLES.items()},
    }
    config: TrainConfig = build_settings(TrainConfig, table | nested, str(path))
    check_config(config, str(path))
    return config


def _kind_of(table: Any, where: str) -> tuple[str, Any]:
    if not isinstance(table, dict):
        return BackProjectionGenerator.kind, table
    shape = dict(table)
    kind = shape.pop("kind", BackProjectionGenerator.kind)
    try:
        config_type(kind)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{where}: {error}. Correct kind = {kind!r}.") from None
    return kind, shape


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:  # the generator's own configuration, built and checked before
        return True
    if hint is bool:
        return isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(hint) is tuple and isinstance(value, tuple):
        inner = get_args(hint)
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        # How many there must be is told by what needs them, in its own words.
        return all(_fits(one, kind) for one, kind in zip(value, kinds, strict=False))
    return isinstance(value, get_origin(hint) or hint) and not isinstance(value, bool)


def build_settings(kind: Any, table: Any, where: str) -> Any:
    """Build a dataclass of settings from a table of TOML.

    Raises
    ------
    TrainingError
        If a key is unknown or missing, or a value is of another type; ``where`` begins the message.
    """
    if not isinstance(table, dict):
        raise TrainingError(f"{where} is {table!r}, not a table of settings. Write the settings below its heading.")
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise TrainingError(f"{where}: unknown key {', '.join(unknown)}. Known keys: {', '.join(known)}.")
    table = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, hint in get_type_hints(kind).items():
        if key in table and not _fits(table[key], hint):
            wanted = getattr(hint, "__name__", str(hint))
            raise TrainingError(f"{where}: {key} = {table[key]!r} is no {wanted}. Correct that line.")
    try:
        return kind(**table)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}. Add the missing key.") from None
