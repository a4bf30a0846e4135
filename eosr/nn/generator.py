"""The default generator: unrolled back-projection around small residual trunks on a coarse grid.

Every stage first moves the estimate towards the measurement, ``x += s^2 A^T (y - A x)``, and then lets a residual
trunk correct what the measurement cannot see, guided by the finer bands. The trunk runs at 20 m, with the 10 m bands
folded into channels (space to depth): four times cheaper per layer than the same trunk at 10 m, and it sees twice as
far. The last convolution of every stage starts at zero, so an untrained generator is plain back-projection.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.operator import adjoint, degrade, taps_for
from eosr.nn.strips import Inputs, correct_by_strips

#: The trunk sees the 10 m bands folded 2 x 2, i.e. it runs on the 20 m grid.
FOLD = 2


@dataclass(frozen=True, kw_only=True)
class BackProjectionConfig:
    """Shape of a `BackProjectionGenerator`."""

    #: Pixel-size ratio between the target bands and 10 m: 2 or 6.
    factor: int = 2
    #: Number of target bands.
    targets: int = 6
    #: Number of 10 m guide bands.
    fine_guides: int = 4
    #: Number of 20 m guide bands (0 for a 20 m -> 10 m generator).
    middle_guides: int = 0
    #: Width of the trunk [channels].
    features: int = 64
    #: Unrolled stages.
    stages: int = 3
    #: Residual blocks per stage.
    blocks: int = 3
    #: Width inside a block relative to `features`.
    expansion: int = 2


class WideBlock(nn.Module):
    """Residual block that is wide before its ReLU (Yu et al., "Wide activation", 2018); reach 1 trunk pixel."""

    def __init__(self, features: int, expansion: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(features, features * expansion, 3, padding=1)
        self.reduce = nn.Conv2d(features * expansion, features, 1)

    def forward(self, x: Tensor, *, rim: int = 0) -> Tensor:
        """Map (B, F, h, w) to the same shape, or without its rim of one pixel: (B, F, h - 2, w - 2)."""
        return _cut(x + self.reduce(functional.relu(self.expand(x))), rim)


class Stage(nn.Module):
    """One trunk: features of the inputs plus those of the stage before -> a correction at 10 m."""

    def __init__(self, config: BackProjectionConfig, inputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, config.features, 3, padding=1)
        self.blocks = nn.Sequential(*(WideBlock(config.features, config.expansion) for _ in range(config.blocks)))
        self.leave = nn.Conv2d(config.features, config.targets * FOLD**2, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: list[Tensor], memory: Tensor | None, *, rim: int = 0) -> tuple[Tensor, Tensor]:
        """Return the correction (B, C, H, W) and the features handed to the next stage (B, F, h, w).

        With ``rim=1`` every block leaves out the outermost trunk pixel of what it is given: both answers are so much
        smaller.
        """
        # One name for all of them, so that what a step has used up is freed at once.
        features = self._entered(inputs)
        if memory is not None:
            features = features + memory
        for block in self.blocks:
            features = block(features, rim=rim)
        return functional.pixel_shuffle(self.leave(features).contiguous(), FOLD), features

    def _entered(self, inputs: list[Tensor]) -> Tensor:
        # A function of its own: the joined inputs, widest but for a block's inside, are gone before the blocks run.
        joined = torch.cat(inputs, dim=1)
        # bfloat16 has 8 bits: digital numbers of 4000 would come in steps of 16. What enters stays float32.
        with torch.autocast(joined.device.type, enabled=False):
            features: Tensor = self.enter(joined.to(self.enter.weight.dtype))
        return features


class BackProjectionGenerator(nn.Module):
    """Sharpen coarse bands by ``factor`` with the finer bands as guides; told the operator it must invert."""

    #: Name in the weights file.
    kind = "back_projection"
    #: Whether it is told the blur that it must invert.
    told = True

    def __init__(self, config: BackProjectionConfig) -> None:
        super().__init__()
        self.config = config
        inputs = FOLD**2 * (config.fine_guides + config.targets) + config.middle_guides + 2 * config.targets
        self.stages = nn.ModuleList(Stage(config, inputs) for _ in range(config.stages))

    @property
    def radius(self) -> int:
        """Fine pixels at which the blur is cut inside the network (the final projection cuts it at 4 sigma)."""
        return self.config.factor

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one output pixel: the overlap a tile needs."""
        s, r = self.config.factor, self.radius
        trunk = FOLD * (1 + self.config.blocks)
        farthest = 0
        # Followed to the right from every place in a coarse pixel; to the left it is the mirror image. Exact: a test
        # finds by gradients the farthest pixel that counts.
        for phase in range(s):
            last = phase
            for _ in range(self.config.stages):
                # The last fine pixel that the trunk reads, then the last one read by a residual that is spread onto it.
                last = last // FOLD * FOLD + FOLD - 1 + trunk
                last = (last + r) // s * s + s - 1 + r
            # The bilinear first guess reads one coarse pixel more.
            farthest = max(farthest, last + s - phase)
        return -(-farthest // s) * s

    def settings(self) -> dict[str, Any]:
        """Return the configuration as plain values, for the weights file."""
        return asdict(self.config)

    def _needed(self, stage: int) -> int:
        """Fine pixels around the wanted ones that the trunk of a stage must see, for it and all later ones."""
        s, r = self.config.factor, self.radius
        trunk = FOLD * (1 + self.config.blocks)
        # The wanted pixels end with a coarse pixel; from its last one the same walk as in `reach`.
        last = s - 1 + trunk
        for _ in range(self.config.stages - stage - 1):
            last = (last + r) // s * s + s - 1 + r
            last = last // FOLD * FOLD + FOLD - 1 + trunk
        return last - (s - 1)

    def forward(
        self, fine: Tensor, coarse: Tensor, sigma: Tensor, middle: Tensor | None = None, *, trim: int = 0
    ) -> Tensor:
        """Sharpen.

        Parameters
        ----------
        fine : Tensor, shape (B, fine_guides, H, W)
            10 m bands, normalised.
        coarse : Tensor, shape (B, targets, H / factor, W / factor)
            Bands to sharpen, normalised the same way.
        sigma : Tensor, shape (B, targets)
            Standard deviation of the blur between the answer and ``coarse`` [fine pixels].
        middle : Tensor, shape (B, middle_guides, H / 2, W / 2), optional
            20 m bands, for a generator of the 60 m bands.
        trim : int
            Fine pixels on each side of the answer that nobody will look at. Later stages, and in a stage later
            layers, then skip what only these need: most of the work of a halo, with the same answer inside.

        Returns
        -------
        Tensor, shape (B, targets, H, W)
        """
        s = self.config.factor
        taps = taps_for(s, sigma, self.radius)
        estimate = functional.interpolate(coarse, scale_factor=s, mode="bilinear", align_corners=False)
        size = (fine.shape[2] // FOLD, fine.shape[3] // FOLD)
        blur = (sigma / s)[:, :, None, None].expand(-1, -1, *size)
        guides = [functional.pixel_unshuffle(fine, FOLD), *([] if middle is None else [middle]), blur]
        if not torch.is_grad_enabled() and fine.device.type == "cpu":
            return self._by_strips(guides, coarse, taps, estimate, trim)
        fixed = torch.cat(guides, dim=1)
        memory: Tensor | None = None
        before = 0
        for index, stage in enumerate(self.stages):
            skip, rim = self._left_out(index, trim)
            residual = coarse - degrade(estimate, taps, s)
            estimate = estimate + s**2 * adjoint(residual, taps, s)
            seen = functional.interpolate(residual, size=size, mode="nearest") if s != FOLD else residual
            inputs = [_cut(part, skip) for part in (fixed, functional.pixel_unshuffle(estimate, FOLD), seen)]
            correction, memory = stage(inputs, None if memory is None else _cut(memory, skip - before), rim=rim)
            before = skip + rim * self.config.blocks
            estimate = estimate + functional.pad(correction.to(estimate.dtype), (FOLD * before,) * 4)
        return estimate

    def _left_out(self, stage: int, trim: int) -> tuple[int, int]:
        """Trunk pixels on each side that a stage does not look at, and the rim that each of its blocks leaves out."""
        needed = self._needed(stage)
        return max(0, trim - needed) // FOLD, int(trim >= needed)

    def _by_strips(
        self, guides: list[Tensor], coarse: Tensor, taps: Tensor, estimate: Tensor, trim: int
    ) -> Tensor:  # fmt: skip
        """The same without gradients on the CPU, in a third of the memory; changes ``estimate``, empties ``guides``."""
        s = self.config.factor
        batch, _, height, width = guides[0].shape
        fixed = coarse.new_empty((batch, height, width, sum(part.shape[1] for part in guides)))
        done = 0
        while guides:
            part = guides.pop(0)
            fixed[..., done : done + part.shape[1]] = part.permute(0, 2, 3, 1)
            done += part.shape[1]
            del part
        fixed = fixed.permute(0, 3, 1, 2)
        dtype = next(self.parameters()).dtype
        features = fixed.new_empty((batch, height, width, self.config.features), dtype=dtype)
        before = 0
        for index, stage in enumerate(self.stages):
            skip, rim = self._left_out(index, trim)
            residual = coarse.clone()
            for band in (slice(i, i + 1) for i in range(coarse.shape[1])):  # one at a time, again for the memory
                residual[:, band] -= degrade(estimate[:, band], taps[:, band], s)
                estimate[:, band] += adjoint(residual[:, band], taps[:, band], s).mul_(s**2)
            seen = functional.interpolate(residual, size=(height, width), mode="nearest") if s != FOLD else residual
            inside = skip - before
            features = features[:, inside : features.shape[1] - inside, inside : features.shape[2] - inside]
            looked_at = Inputs(fixed=fixed, estimate=estimate, seen=seen, skip=skip)
            last = index == len(self.stages) - 1
            correct_by_strips(stage, looked_at, features, first=index == 0, last=last, rim=rim)
            before = skip
        return estimate


def _cut(x: Tensor, rim: int) -> Tensor:
    return x[..., rim : x.shape[-2] - rim, rim : x.shape[-1] - rim]
