"""The weights file: tensors, configuration, normalisation and history in one safetensors file, exact or refused.

No pickle is read or written. Everything that is not a tensor is one JSON text under the metadata key ``eosr``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, get_type_hints

import dask.threaded
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from eosr.cube.bands import BANDS, BANDS_20M, BANDS_60M, check_bands
from eosr.errors import WeightsError
from eosr.host.files import put
from eosr.nn.dsen2 import FINE_BANDS, SCALE, Dsen2Generator
from eosr.nn.kinds import Generator, build_generator, config_type
from eosr.nn.shipped import SHIPPED as SHIPPED
from eosr.nn.shipped import file_checksum as file_checksum
from eosr.nn.shipped import weights_path as weights_path

#: Version of the layout of the metadata.
FORMAT: Final = 1
#: What any number of a configuration may be.
_SMALL: Final = 100


def _after_fork() -> None:
    """Let a forked process compute: the threads of its parent's pools are not there, and would be waited for."""
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()
    dask.config.set(scheduler="threads", pool=None)  # a cluster's client runs on a thread of the parent too
    torch.set_num_threads(1)  # OpenMP's pool, pytorch/pytorch#17199


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """What a generator expects of its input."""

    #: 10 m bands in the order of the generator's first input.
    fine_bands: tuple[str, ...]
    #: 20 m bands that guide a 60 m generator, in order; empty for a 20 m one.
    middle_bands: tuple[str, ...]
    #: Bands that are sharpened, in order of the output.
    target_bands: tuple[str, ...]
    #: Digital numbers (offset applied) per unit of the network [DN].
    scale: float


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a generator comes from."""

    #: Version and commit of eosr that trained it.
    software: str
    #: SHA-256 of every data file, by name.
    data: Mapping[str, str]
    seed: int
    steps: int
    #: Scores by operator and group of scenes: RMSE relative to bicubic [1]. In the shipped 20 m file RMSE [DN], and
    #: "block" is part of an image that was trained on.
    scores: Mapping[str, float]
    #: Largest change of a pixel on the scenes of validation under bfloat16 convolutions [DN].
    bfloat16_error: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A generator ready to run, with its normalisation and its history."""

    name: str
    generator: Generator
    normalization: Normalization
    provenance: Provenance
    #: Processing levels it serves.
    levels: tuple[str, ...]
    #: Degradation operators it was trained to invert.
    degradations: tuple[str, ...]
    #: SHA-256 of the file; empty for weights that were never written.
    checksum: str = field(default="", compare=False)

    @property
    def factor(self) -> int:
        """Pixel-size ratio between the target bands and 10 m."""
        return int(self.generator.config.factor)

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.generator.parameters())


def save_weights(weights: Weights, path: str | os.PathLike[str]) -> Path:
    """Write a weights file; it appears under its name only when whole.

    Raises
    ------
    WeightsError
        If the folder does not exist or cannot be written.
    """
    path = Path(path)
    about = {
        "format": FORMAT,
        "name": weights.name,
        "kind": weights.generator.kind,
        "config": weights.generator.settings(),
        "normalization": asdict(weights.normalization),
        "provenance": asdict(weights.provenance),
        "levels": weights.levels,
        "degradations": weights.degradations,
    }
    part = path.with_name(path.name + ".part")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.generator.state_dict().items()}
    try:
        save_file(tensors, part, metadata={"eosr": json.dumps(about)})
        part.chmod(0o644)  # safetensors writes files that other users of a cluster could not read
        put(part, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise WeightsError(f"{path} cannot be written: {error}. Name a folder you may write to.") from error
    return path


def read_about(path: Path) -> dict[str, Any]:
    """Everything in a weights file but its tensors.

    Raises
    ------
    WeightsError
        If the file is damaged, no safetensors file, or not one of eosr's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{path} is no weights file of eosr, or is damaged ({str(error).splitlines()[0]}). "
            "Download or copy it again; eosr reads .safetensors files, and DSen2's .hdf5 and .pt files."
        ) from error
    try:
        about = json.loads(metadata["eosr"])
    except (KeyError, json.JSONDecodeError, RecursionError):
        raise WeightsError(
            f"{path} is a safetensors file, but not one of eosr: it lacks the 'eosr' record of configuration and "
            "normalisation. Write it with eosr-train or eosr.nn.save_weights."
        ) from None
    version = about.get("format") if isinstance(about, dict) else None
    if version != FORMAT:
        raise WeightsError(f"{path} has format {version!r}; this eosr reads format {FORMAT}. Upgrade eosr, or retrain.")
    return dict(about)


def load_weights(source: str | os.PathLike[str]) -> Weights:
    """Load a generator by shipped name or by path, on the CPU, ready to run.

    Parameters
    ----------
    source : str or path
        ``"s2sr-20m"``, ``"s2sr-60m"``, a ``.safetensors`` file that eosr wrote, or DSen2's weights as published,
        in Keras HDF5 or TorchScript (told by content, not by name).

    Returns
    -------
    Weights
        With ``generator.eval()``, no gradients, and the file's SHA-256 in ``checksum``.

    Raises
    ------
    WeightsError
        If there is no such file, or it is damaged, or its tensors do not fit its configuration; in one sentence.
    MissingExtraError
        If it is a Keras file and h5py is not installed.
    """
    # Imported here: reading other files than eosr's own is rare.
    from eosr.nn.dsen2_files import is_dsen2_file, read_dsen2

    path = weights_path(source)
    if is_dsen2_file(path):
        return _published(read_dsen2(path), path)
    about = read_about(path)
    try:
        # Notebooks set other defaults of torch; the tensors of a file are float32, and come to the CPU first.
        with torch.device("cpu"):
            generator = _generator(about["kind"], about["config"], path).to(torch.float32)
        normalization = _normalization(about["normalization"], generator)
        _fill(generator, path)
        return Weights(
            name=about["name"], generator=generator.eval().requires_grad_(False), normalization=normalization,
            provenance=Provenance(**about["provenance"]), levels=tuple(about["levels"]),
            degradations=tuple(about["degradations"]), checksum=file_checksum(path),
        )  # fmt: skip
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError, RuntimeError,
        SafetensorError,
    ) as error:  # fmt: skip
        reason = f"its record lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} contradicts itself: {reason}. Copy it again, or retrain.") from error


def shared_weights(source: str | os.PathLike[str]) -> Weights:
    """As `load_weights`, but one object for all of this process while the file stays as it is: not to be changed."""
    path = weights_path(source).resolve()
    found = path.stat()
    return _shared(str(path), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=16)
def _shared(path: str, changed: int, size: int) -> Weights:
    return load_weights(path)


def _published(generator: Dsen2Generator, path: Path) -> Weights:
    """Write the record that published weights of DSen2 lack."""
    from eosr.nn.dsen2_files import LEVELS_OF

    twenty = generator.config.factor == 2
    checksum = file_checksum(path)
    deep = "v" if (generator.config.features, generator.config.blocks) == (256, 32) else ""
    return Weights(
        name=f"{deep}dsen2-{20 if twenty else 60}m", generator=generator.to("cpu", torch.float32),
        normalization=Normalization(
            fine_bands=FINE_BANDS, middle_bands=() if twenty else BANDS_20M,
            target_bands=BANDS_20M if twenty else BANDS_60M, scale=SCALE,
        ),
        provenance=Provenance(
            software=f"DSen2, published weights (GPL-3), imported from {path.name}", data={}, seed=0, steps=0, scores={}
        ),
        levels=LEVELS_OF.get(checksum, ()), degradations=(), checksum=checksum,
    )  # fmt: skip


def _generator(kind: str, settings: Mapping[str, Any], path: Path) -> Generator:
    """Build the generator of a file: first without memory, to see that the tensors of the file are its own.

    Every number in a configuration is a width, which a tensor has, or a count of parts, each with tensors, or small.
    """
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping
    most = max([_SMALL, len(shapes), *(side for shape in shapes.values() for side in shape)])
    hints = get_type_hints(config_type(kind))
    for name, value in settings.items():
        if hints.get(name) is int and (type(value) is not int or not 0 <= value <= most):
            raise ValueError(f"{name} is {value!r}, which its tensors do not have")
        if hints.get(name) is float and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"{name} is {value!r}, which is no number")
    parts = math.prod(settings.get(name, 1) for name in ("stages", "groups", "blocks"))
    if parts > max(_SMALL, len(shapes)):
        raise ValueError(f"it has {parts} parts by its configuration, and {len(shapes)} tensors")
    if settings.get("factor", 2) not in (2, 6):
        raise ValueError(f"factor is {settings['factor']}; bands of 20 m have 2, those of 60 m 6")
    with torch.device("meta"):
        build_generator(kind, settings).load_state_dict({name: torch.empty(shape) for name, shape in shapes.items()})
    return build_generator(kind, settings)


def _normalization(record: Mapping[str, Any], generator: Generator) -> Normalization:
    """Read the normalisation and hold it against the widths of the generator."""
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
    normalization = Normalization(**values)
    if not (math.isfinite(normalization.scale) and normalization.scale > 0):
        raise ValueError(f"scale {normalization.scale!r} is no positive number")
    for group, width in (
        ("fine", generator.config.fine_guides),
        ("middle", generator.config.middle_guides),
        ("target", generator.config.targets),
    ):
        names = check_bands(getattr(normalization, f"{group}_bands"))
        if len(names) != width:
            raise ValueError(f"{len(names)} {group} bands are named, its generator takes {width}")
    sizes = {BANDS[name].gsd for name in normalization.target_bands}
    if sizes != {10 * generator.config.factor}:
        raise ValueError(f"factor is {generator.config.factor}, its bands have pixels of {sorted(sizes)} m")
    return normalization


def _fill(generator: Generator, path: Path) -> None:
    """Put the tensors of a file into a generator: all of them, no others, of the same type, every one a number."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    expected = generator.state_dict()
    for name, tensor in tensors.items():
        # load_state_dict would round or widen another type in silence.
        if name in expected and tensor.dtype != expected[name].dtype:
            raise ValueError(f"tensor {name} is {tensor.dtype}, not {expected[name].dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensor {name} holds values that are no numbers")
    generator.load_state_dict(tensors)
