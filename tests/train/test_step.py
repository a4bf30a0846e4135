"""One step: who is moved by what, what the discriminator sees, and how strong its voice is."""

import copy

import numpy as np
import pytest
import torch

from eosr.nn.losses import ADVERSARIAL, gradient_ratio
from eosr.nn.operator import axis_matrix, taps_for
from eosr.train.data.windows import Windows, collate
from eosr.train.loop import build_networks
from eosr.train.optimisers import build_optimiser, orthogonalised
from eosr.train.ranks.communicator import Alone
from eosr.train.step import NonFiniteError, Stepper
from train.made import made_scene, tiny_config

torch.set_num_threads(1)
CPU = torch.device("cpu")
SMALL = {"loss": "hinge", "features": 4, "stages": 2, "ramp": 0}


def adversarial_config(**changes):
    settings = {key: value for key, value in changes.items() if key not in ("steps", "ema")}
    rest = {key: changes[key] for key in ("steps", "ema") if key in changes}
    return tiny_config(precision="float64", window={"size": 28}, adversarial=SMALL | settings, **rest)


def stepper_of(config):
    return Stepper(build_networks(config, CPU), config, Alone(), CPU)


def batch_of(config, count=2, usable=None):
    windows = Windows([made_scene(usable=usable)], config.window)
    return collate([windows.sample(k, 0) for k in range(count)]).to(CPU, torch.float64)


def copied(network):
    return copy.deepcopy(network.state_dict())


def moved(network, before):
    return any(not torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_each_step_moves_its_own_network_and_not_the_other(kind):
    config = adversarial_config(loss=kind)
    stepper, batch = stepper_of(config), batch_of(config)
    networks = stepper.networks
    generator, critic = copied(networks.generator), copied(networks.critic)
    measures = stepper.critic_step(batch, 0, 0, 1e-3)
    assert set(measures) == ({"critic", "penalty"} if kind == "wgan_gp" else {"critic"})
    assert moved(networks.critic, critic)
    assert not moved(networks.generator, generator)
    critic = copied(networks.critic)
    measures, stop = stepper.generator_step(batch, 0, 1e-3, False)
    assert set(measures) == {"loss", "adversarial", "weight", "gradient"}
    assert stop is False
    assert moved(networks.generator, generator)
    assert not moved(networks.critic, critic)
    assert all(p.requires_grad for p in networks.critic.parameters())
    if kind == "wgan":
        assert max(p.abs().max().item() for p in networks.critic.parameters()) <= 0.01


def test_the_weight_of_the_adversarial_loss_gives_the_wanted_ratio_of_gradients():
    """Measured again from outside: weight * ||d adversarial / d estimate|| = 0.3 * ||d loss / d estimate||."""
    config = adversarial_config(gradient_ratio=0.3)
    stepper, batch = stepper_of(config), batch_of(config)
    before = copy.deepcopy(stepper.networks)
    measures, _ = stepper.generator_step(batch, 0, 1e-3, False)
    stepper.networks = before
    estimate = stepper._estimate(batch, 0)
    loss = stepper._reconstruction(estimate, batch)
    adversarial = stepper._adversarial(before.critic, estimate, batch)
    assert measures["weight"] * gradient_ratio(loss, adversarial, estimate) == pytest.approx(0.3, rel=1e-6)


def test_the_weight_rises_over_the_ramp_and_is_calibrated_only_now_and_then():
    config = adversarial_config(gradient_ratio=0.0, weight=0.8, ramp=4)
    stepper, batch = stepper_of(config), batch_of(config)
    weights = [stepper.generator_step(batch, step, 0.0, False)[0]["weight"] for step in range(6)]
    assert weights == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    config = adversarial_config(gradient_ratio=0.1, calibrate_every=3)
    stepper = stepper_of(config)
    weights = [stepper.generator_step(batch_of(config), step, 1e-2, False)[0]["weight"] for step in range(7)]
    assert weights[0] == weights[1] == weights[2] != weights[3] == weights[4] == weights[5] != weights[6]


@pytest.mark.parametrize("consistency", [True, False])
def test_with_the_layer_every_estimate_degrades_to_the_measurement(consistency):
    config = adversarial_config(consistency=consistency)
    stepper, batch = stepper_of(config), batch_of(config)
    for network in (stepper.networks.generator,):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.05)
    taps = taps_for(2, batch.sigma, 6).double()
    rows = axis_matrix(taps, 2, 28)
    residual = rows @ stepper._estimate(batch, 0) @ rows.transpose(-1, -2) - batch.coarse
    assert (residual.abs().max() < 1e-6) == consistency


def test_the_discriminator_sees_neither_the_rim_nor_what_has_no_truth():
    usable = torch.ones(96, 96, dtype=torch.bool).numpy()
    usable[:, 30:40] = False
    config = adversarial_config(conditional=True)
    stepper, batch = stepper_of(config), batch_of(config, 4, usable)
    for seen in (stepper._seen(batch.target, batch), stepper._shown(batch)):
        assert seen.shape[-2:] == (20, 20)
        core = batch.weight[..., 4:-4, 4:-4]
        assert (seen * (1 - core)).abs().max() == 0
        assert ((seen != 0) == (core > 0)).all()
    assert (batch.weight[..., 4:-4, 4:-4] == 0).any()
    assert stepper_of(adversarial_config(conditional=False))._shown(batch) is None


def test_a_loss_that_is_no_number_moves_nothing():
    config = adversarial_config()
    stepper, batch = stepper_of(config), batch_of(config)
    batch.target[0, 0, 10, 10] = float("nan")
    before = copied(stepper.networks.generator), copied(stepper.networks.critic)
    for step in (lambda: stepper.generator_step(batch, 0, 1e-3, False), lambda: stepper.critic_step(batch, 0, 0, 1e-3)):
        with pytest.raises(NonFiniteError) as caught:
            step()
        assert caught.value.what == "loss"
    assert not moved(stepper.networks.generator, before[0])
    assert not moved(stepper.networks.critic, before[1])


def test_a_signal_is_passed_on():
    config = tiny_config()
    batch = collate([Windows([made_scene()], config.window).sample(0, 0)])
    assert stepper_of(config).generator_step(batch, 0, 1e-3, True)[1] is True


def test_the_penalty_looks_at_places_that_follow_from_the_number_of_the_window_alone():
    """Rank 1 of 2 with two windows looks where one rank with four looks at its last two."""
    config = adversarial_config(loss="wgan_gp")
    stepper = stepper_of(config)
    whole = stepper._between(4, 3)
    assert len(whole.unique()) == 4
    stepper.communicator = type("Two", (Alone,), {"rank": 1, "size": 2})()
    assert torch.equal(stepper._between(2, 3), whole[2:])
    assert not torch.equal(stepper._between(2, 4), whole[2:])


def test_muon_moves_a_kernel_along_all_its_directions_alike():
    """Of a gradient with singular values from 1 to 0.01 an update of Muon has all near one size, as the recipe says."""
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.standard_normal((16, 36)), full_matrices=False)
    gradient = torch.from_numpy(left @ np.diag(np.geomspace(1, 0.01, 16)) @ right)
    made = orthogonalised(gradient)
    values = torch.linalg.svdvals(made)
    assert 0.6 < values.min() < values.max() < 1.3
    torch.testing.assert_close(orthogonalised(gradient.T), made.T)
    # Same singular vectors: what is left of U' X V beside its diagonal is nothing.
    turned = torch.from_numpy(left).T @ made @ torch.from_numpy(right).T
    assert (turned - torch.diag(turned.diagonal())).abs().max() < 1e-9


def test_muon_gives_kernels_the_size_of_an_adamw_update_and_vectors_to_adamw():
    kernel, bias = (torch.nn.Parameter(torch.zeros(*shape, dtype=torch.float64)) for shape in ((8, 4, 3, 3), (8,)))
    optimiser = build_optimiser([kernel, bias], tiny_config(optimiser="muon", weight_decay=0.0))
    generator = torch.Generator().manual_seed(1)
    kernel.grad = torch.randn(kernel.shape, generator=generator, dtype=torch.float64)
    bias.grad = torch.randn(bias.shape, generator=generator, dtype=torch.float64)
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    assert 0.1 * 0.2 * 0.7 < kernel.square().mean().sqrt() < 0.1 * 0.2 * 1.2
    # The first step of Adam is the rate, against the sign.
    torch.testing.assert_close(bias.data, -0.1 * bias.grad.sign(), rtol=1e-5, atol=0)
    assert kernel.grad is not None


def test_muon_goes_on_from_its_state_as_if_nothing_had_happened():
    config = tiny_config(optimiser="muon", precision="float64")
    batch = batch_of(config)
    whole, first, second = stepper_of(config), stepper_of(config), stepper_of(config)
    for step in range(4):
        whole.generator_step(batch, step, 1e-3, False)
    for step in range(2):
        first.generator_step(batch, step, 1e-3, False)
    second.networks.generator.load_state_dict(first.networks.generator.state_dict())
    second.networks.optimiser.load_state_dict(copy.deepcopy(first.networks.optimiser.state_dict()))
    for step in range(2, 4):
        second.generator_step(batch, step, 1e-3, False)
    ends = whole.networks.generator.state_dict(), second.networks.generator.state_dict()
    assert all(torch.equal(ends[0][name], tensor) for name, tensor in ends[1].items())
