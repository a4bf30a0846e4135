"""Every kind of generator by the name it has in a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from eosr.nn.study import StudyConfig, StudyGenerator

#: A generator: a `torch.nn.Module` with ``kind``, ``config``, ``settings()``, ``reach`` and one common ``forward``.
Generator = BackProjectionGenerator | StudyGenerator

_KINDS: Final[Mapping[str, Any]] = {
    BackProjectionGenerator.kind: (BackProjectionGenerator, BackProjectionConfig),
    StudyGenerator.kind: (StudyGenerator, StudyConfig),
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
