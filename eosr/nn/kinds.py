"""Every kind of generator by the name it has in a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eosr.nn.dsen2 import Dsen2Config, Dsen2Generator
from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from eosr.nn.options import OPTIONS, DirectGenerator
from eosr.nn.options.study import StudyConfig, StudyGenerator

#: A generator: a `torch.nn.Module` with ``kind``, ``config``, ``settings()``, ``reach`` and one common ``forward``.
Generator = BackProjectionGenerator | DirectGenerator

_KINDS: Final[Mapping[str, Any]] = {
    BackProjectionGenerator.kind: (BackProjectionGenerator, BackProjectionConfig),
    StudyGenerator.kind: (StudyGenerator, StudyConfig),
    Dsen2Generator.kind: (Dsen2Generator, Dsen2Config),
    **{generator.kind: (generator, config) for generator, config in OPTIONS},
}


def build_generator(kind: str, settings: Mapping[str, Any]) -> Generator:
    """Build an untrained generator from its kind and the values of its configuration.

    Raises
    ------
    ValueError
        If the kind is unknown.
    TypeError
        If a setting is unknown.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of generator {kind!r}; this eosr knows {', '.join(_KINDS)}")
    generator, config = _KINDS[kind]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    built: Generator = generator(config(**values))
    return built


def config_type(kind: str) -> Any:
    """Return the configuration class of a kind of generator.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of generator {kind!r}; this eosr knows {', '.join(_KINDS)}")
    return _KINDS[kind][1]
