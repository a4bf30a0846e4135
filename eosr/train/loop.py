"""The trainer: windows in, a running mean of weights out; killed at any moment, it resumes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from eosr.errors import SharedError, TrainingError, WeightsError
from eosr.nn.discriminator import DiscriminatorConfig, build_discriminator
from eosr.nn.kinds import Generator, build_generator
from eosr.nn.weights import load_weights
from eosr.train.data.material import Material
from eosr.train.data.stream import Stream, stream
from eosr.train.data.windows import Batch
from eosr.train.optimisers import build_critic_optimiser, build_optimiser, learning_rate
from eosr.train.outcome.export import export
from eosr.train.outcome.records import Log, check_tensorboard, write_pictures
from eosr.train.outcome.scores import by_group, mean_scores, relative, score_together
from eosr.train.outcome.state import load_state, save_state
from eosr.train.ranks.communicator import Communicator, together
from eosr.train.ranks.signals import StopSignals
from eosr.train.settings.schema import TrainConfig
from eosr.train.step import Networks, NonFiniteError, Stepper

#: Called with (steps done, steps in all) after every step.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    #: The running mean of the generator, or the best of them under early stopping.
    generator: Generator
    #: Steps done.
    step: int
    #: False where a signal stopped it: the same command goes on.
    finished: bool
    #: `eosr.train.outcome.scores.by_group` of this generator, where it has just been validated under all operators.
    scores: dict[str, float] | None = None


@dataclass(kw_only=True)
class _Course:
    """What a run remembers beside its networks; all of it lies in the state file."""

    step: int = 0
    #: Sums of the measures since the last validation, and of how many steps.
    sums: dict[str, float] | None = None
    count: int = 0
    #: Best error so far, and validations since then; since the last halving of the rate.
    best: float = float("inf")
    since_best: int = 0
    since_halving: int = 0
    halvings: int = 0
    #: Tensors of the best running mean, under early stopping.
    best_mean: dict[str, Any] | None = None
    done: bool = False


def train(
    config: TrainConfig, material: Material, folder: Path, *, communicator: Communicator, device: torch.device,
    tell: Callable[[str], None] | None = None, progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Train to the last step, or on from the state file in ``folder``.

    Parameters
    ----------
    config : TrainConfig
    material : Material
    folder : Path
        Receives ``state.pt``, ``log.jsonl`` (a line per validation), ``latest.safetensors`` and what `records` writes.
    communicator : Communicator
        Of this process; every rank calls `train` alike.
    device : torch.device
        Of this rank.
    tell : callable, optional
        Called with a line of text at the start and per validation.
    progress : callable, optional
        Called after every step.

    Raises
    ------
    TrainingError
        On every rank alike, if the state file belongs to another configuration, the folder cannot be written, or the
        loss is no longer a number.
    RankLostError
        If another rank is gone; the last state is whole.
    """
    return _Run(config, material, folder, communicator, device, tell or (lambda text: None), progress).go()


class _Run:
    def __init__(
        self, config: TrainConfig, material: Material, folder: Path, communicator: Communicator, device: torch.device,
        tell: Callable[[str], None], progress: Progress | None,
    ) -> None:  # fmt: skip
        self.config, self.material, self.folder, self.communicator = config, material, folder, communicator
        self.device, self.tell, self.progress = device, tell, progress
        self.chief = communicator.rank == 0
        self.scores: dict[str, float] | None = None
        # Denormal activations slow a CPU step by an order of magnitude.
        torch.set_flush_denormal(True)
        with together(communicator):
            _make_folder(folder)
            if config.tensorboard:
                check_tensorboard()
            self.networks = build_networks(config, device)
            self.course = self._resume()
        for network in (self.networks.generator, self.networks.mean, self.networks.critic):
            if network is not None:
                communicator.broadcast([*network.parameters(), *network.buffers()])
        self.stepper = Stepper(self.networks, config, communicator, device)
        self.log = Log(folder, self.course.step, tensorboard=config.tensorboard) if self.chief else None
        self.before, self.began = self.log.seconds if self.log else 0.0, time.monotonic()

    def go(self) -> Outcome:
        config, course = self.config, self.course
        place = (self.communicator.rank, self.communicator.size)
        stopped = False
        try:
            with (
                StopSignals() as signals,
                stream(
                    self.material.source, seed=config.seed, batch=config.batch, place=place, readers=config.readers
                ) as batches,
            ):
                while course.step < config.steps and not course.done and not stopped:
                    stopped = self._step(batches, signals)
        finally:
            if self.log:
                self.log.close()
        if course.best_mean is not None:
            self.networks.mean.load_state_dict(course.best_mean)
            self.scores = None
        mean: Any = self.networks.mean
        finished = course.done or course.step == config.steps
        return Outcome(generator=mean, step=course.step, finished=finished, scores=self.scores)

    def _step(self, batches: Stream, signals: StopSignals) -> bool:
        """One step, and what is due after it; return whether a signal ends the run here."""
        config, course, step = self.config, self.course, self.course.step
        size = self.communicator.size
        rate = learning_rate(step, config, ranks=size, halvings=course.halvings)
        batch, first = None, step * max(1, config.critic_steps)
        try:
            measures: dict[str, float] = {}
            for number in range(first, first + max(1, config.critic_steps)):
                batch = self._drawn(batches, number)
                if config.critic_steps:
                    of_critic = rate / config.learning_rate * config.adversarial.learning_rate
                    measures = self.stepper.critic_step(batch, step, number, of_critic)
            # The generator learns from the last windows that the discriminator saw.
            moved, stop = self.stepper.generator_step(self._some(batch), step, rate, bool(signals.received))
        except NonFiniteError as error:
            raise self._no_number(error, self._some(batch), step) from None
        self._add(measures | moved)
        course.step += 1
        if self.progress:
            self.progress(course.step, config.steps)
        if course.step % config.every == 0 or course.step == config.steps:
            self._validate(rate)
        if stop or course.done or course.step == config.steps or course.step % (config.save_every or config.every) == 0:
            self._save()
        if stop and course.step < config.steps:
            self.tell(
                f"stopped by {signals.received or 'a signal of another rank'} after step {course.step} of "
                f"{config.steps}: the state is saved, the same command goes on"
            )
        return stop

    def _drawn(self, batches: Stream, number: int) -> Batch:
        # An error of one rank's windows must not leave the others waiting in an all-reduce for ever: they lose it, and
        # say so within the time-out of the communicator.
        return batches.batch(number).to(self.device, self.stepper.dtype)

    @staticmethod
    def _some(batch: Batch | None) -> Batch:
        if batch is None:
            raise ValueError("no windows were drawn")
        return batch

    def _add(self, measures: dict[str, float]) -> None:
        sums = self.course.sums or dict.fromkeys(measures, 0.0)
        self.course.sums = {key: sums[key] + value for key, value in measures.items()}
        self.course.count += 1

    def _no_number(self, error: NonFiniteError, batch: Batch, step: int) -> SharedError:
        path = self.folder / f"not-a-number-step-{step}-rank-{self.communicator.rank}.pt"
        torch.save({name: None if one is None else one.cpu() for name, one in vars(batch).items()}, path)
        return SharedError(
            f"the {error.what} of step {step} is {error.value}. Lower learning_rate; the last state is kept, and the "
            f"windows of the step are in {path}."
        )

    def _validate(self, rate: float) -> None:
        """Score the running mean on all ranks, write it down, and see to early stopping and the plateau."""
        config, course = self.config, self.course
        last = course.step == config.steps
        operators = config.inverts if last else config.validation.operators
        latest = self.folder / "latest.safetensors"
        with together(self.communicator):
            if self.chief:
                mean: Any = self.networks.mean
                export(mean, config, self.material, path=latest)
        with together(self.communicator):
            scores = score_together(
                latest, self.material.validation, operators, config.validation.properties, factor=config.window.factor,
                communicator=self.communicator, device=str(self.device),
            )  # fmt: skip
        told = by_group(scores, operators, self.material.validation)
        self.scores = told if last else None
        # A store without any place of its own for validation is judged by what there is.
        self._judge(told.get(operators[0], relative(scores, operators[0])))
        if not self.log:
            course.sums, course.count = None, 0
            return
        seconds = round(self.before + time.monotonic() - self.began, 1)
        means = {key: total / course.count for key, total in (course.sums or {}).items()}
        course.sums, course.count = None, 0
        # The line first: a run killed before the state is saved repeats these steps, and `Log` takes it out again.
        self.log.write(
            {"step": course.step, **means, "rate": rate, "seconds": seconds, **told} | {"scores": mean_scores(scores)}
        )
        write_pictures(
            self.folder / "pictures", course.step, copy.deepcopy(self.networks.mean).cpu().float(),  # type: ignore[arg-type]
            self.material.validation[: config.validation.pictures], config.window.factor,
        )  # fmt: skip
        figures = ", ".join(f"{key} {value}" for key, value in told.items())
        self.tell(
            f"step {course.step} of {config.steps}: loss {means['loss']:.5f}, {seconds:.0f} s"
            + (f", RMSE / bicubic {figures}" if figures else "")
        )

    def _judge(self, error: float) -> None:
        """Count validations without a lower error."""
        config, course = self.config, self.course
        if error < course.best:
            course.best, course.since_best, course.since_halving = error, 0, 0
            if config.validation.patience:
                course.best_mean = {k: v.detach().cpu().clone() for k, v in self.networks.mean.state_dict().items()}
            return
        course.since_best += 1
        course.since_halving += 1
        if config.schedule == "plateau" and course.since_halving >= config.plateau:
            course.halvings, course.since_halving = course.halvings + 1, 0
        course.done = bool(config.validation.patience) and course.since_best >= config.validation.patience
        if course.done:
            self.tell(f"no lower error in {course.since_best} validations: stopped early, the best weights are kept")

    def _save(self) -> None:
        networks = self.networks
        with together(self.communicator):
            if self.chief:
                parts: dict[str, Any] = {
                    "generator": networks.generator, "mean": networks.mean, "optimiser": networks.optimiser,
                    "critic": networks.critic, "critic_optimiser": networks.critic_optimiser,
                }  # fmt: skip
                content = {key: part.state_dict() for key, part in parts.items() if part is not None}
                course = {key: value for key, value in vars(self.course).items() if key != "step"}
                content |= {"step": self.course.step, "course": course, "weight": networks.weight}
                save_state(self.folder / "state.pt", self.config, self.communicator.size, content)

    def _resume(self) -> _Course:
        state = load_state(self.folder / "state.pt", self.config, self.communicator.size)
        if state is None:
            return _Course()
        networks = self.networks
        networks.generator.load_state_dict(state["generator"])
        networks.mean.load_state_dict(state["mean"])
        networks.optimiser.load_state_dict(state["optimiser"])
        if networks.critic is not None and networks.critic_optimiser is not None:
            networks.critic.load_state_dict(state["critic"])
            networks.critic_optimiser.load_state_dict(state["critic_optimiser"])
        networks.weight = state["weight"]
        course = _Course(step=state["step"], **state["course"])
        over = course.step == self.config.steps or course.done
        self.tell(f"{'already finished:' if over else 'going on from'} step {course.step} of {self.config.steps}")
        return course


def build_networks(config: TrainConfig, device: torch.device) -> Networks:
    """Build what a configuration trains, the generator from its ``initial`` weights where it names some.

    Raises
    ------
    TrainingError
        If these weights are of another kind or shape.
    """
    torch.manual_seed(config.seed)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    generator: Any = build_generator(config.kind, asdict(config.generator))
    if config.initial:
        _begin_with(generator, config)
    generator = generator.to(device, dtype)
    networks = Networks(
        generator=generator, mean=copy.deepcopy(generator).requires_grad_(False),
        optimiser=build_optimiser(generator.parameters(), config),
    )  # fmt: skip
    if config.adversarial.loss:
        adversarial = config.adversarial
        shape = DiscriminatorConfig(
            kind=adversarial.kind, bands=config.generator.targets,
            condition=config.generator.fine_guides if adversarial.conditional else 0,
            features=adversarial.features, stages=adversarial.stages, spectral_norm=adversarial.spectral_norm,
        )  # fmt: skip
        networks.critic = build_discriminator(shape).to(device, dtype)
        networks.critic_optimiser = build_critic_optimiser(networks.critic.parameters(), config)
    return networks


def _begin_with(generator: Any, config: TrainConfig) -> None:
    try:
        initial = load_weights(config.initial)
    except WeightsError as error:
        raise TrainingError(f"initial = {config.initial!r} cannot be used: {error}") from None
    theirs, own = initial.generator, generator
    if (theirs.kind, theirs.settings()) != (own.kind, own.settings()):
        raise TrainingError(
            f"initial = {config.initial!r} is a {theirs.kind} with {theirs.settings()}, [generator] asks for a "
            f"{own.kind} with {own.settings()}. Make them equal, or begin with other weights."
        )
    generator.load_state_dict(theirs.state_dict())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(
            f"nothing can be written into {folder}: {error}. Name another folder with --out."
        ) from error
