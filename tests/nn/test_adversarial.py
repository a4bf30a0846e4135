"""Adversarial losses: hand values, derivatives against finite differences, and what ranks may average."""

import math

import pytest
import torch
from torch import nn

from eosr.nn.discriminator import DiscriminatorConfig, build_discriminator
from eosr.nn.losses import (
    ADVERSARIAL,
    clip_weights,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    gradient_ratio,
    gradient_squares,
    needs_real,
)

torch.set_num_threads(1)
REAL, MADE = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)


def soft(x):
    """log(1 + e^x) = -log sigmoid(-x)."""
    return math.log1p(math.exp(x))


#: By hand, for real logits 2, -1 and made ones 0.5, 1: their means are 0.5 and 0.75.
HAND = {
    "vanilla": (
        (soft(-2) + soft(1) + soft(0.5) + soft(1)) / 2,  # -log D(x) - log(1 - D(y))
        (soft(-0.5) + soft(-1)) / 2,  # -log D(y)
    ),
    "hinge": ((0 + 2 + 1.5 + 2) / 2, -0.75),
    "relativistic": ((soft(-1.5) + soft(2)) / 2, (soft(1.5) + soft(-2)) / 2),  # differences 1.5, -2
    "relativistic_average": (
        (soft(-1.25) + soft(1.75) + soft(0) + soft(0.5)) / 2,  # x - 0.75: 1.25, -1.75; y - 0.5: 0, 0.5
        (soft(0) + soft(-0.5) + soft(1.25) + soft(-1.75)) / 2,
    ),
    "wgan": (0.75 - 0.5, -0.75),
    "wgan_gp": (0.75 - 0.5, -0.75),
}


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_losses_have_the_values_of_hand(kind):
    assert discriminator_loss(kind, REAL, MADE).item() == pytest.approx(HAND[kind][0])
    assert generator_loss(kind, REAL, MADE).item() == pytest.approx(HAND[kind][1])


def test_the_saturating_loss_is_log_1_minus_d():
    """D = sigmoid(0.5) = 0.6225, sigmoid(1) = 0.7311."""
    expected = (math.log(1 - 1 / (1 + math.exp(-0.5))) + math.log(1 - 1 / (1 + math.exp(-1)))) / 2
    assert generator_loss("vanilla", REAL, MADE, saturating=True).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_derivatives_are_those_of_finite_differences(kind):
    real, made = (one.clone().requires_grad_() for one in (REAL, MADE))
    assert torch.autograd.gradcheck(lambda x, y: discriminator_loss(kind, x, y), (real, made))
    assert torch.autograd.gradcheck(lambda x, y: generator_loss(kind, x, y), (real, made))
    if kind == "vanilla":
        assert torch.autograd.gradcheck(lambda x, y: generator_loss(kind, x, y, saturating=True), (real, made))


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_logits_of_a_thousand_leave_losses_and_derivatives_numbers(kind):
    """Log of a sigmoid in float32 would be -inf from -104 on."""
    for far in (1e3, -1e3):
        real, made = torch.tensor([far], requires_grad=True), torch.tensor([-far], requires_grad=True)
        total = discriminator_loss(kind, real, made) + generator_loss(kind, real, made)
        total.backward()
        assert torch.isfinite(torch.stack([total.detach(), real.grad[0], made.grad[0]])).all()


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_both_pull_in_their_own_direction(kind):
    """The discriminator lowers its loss by lower logits of what is made, the generator by higher ones."""
    made = MADE.clone().requires_grad_()
    for loss, sign in ((discriminator_loss, 1), (generator_loss, -1)):
        (gradient,) = torch.autograd.grad(loss(kind, REAL, made), made)
        assert (gradient * sign >= 0).all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_halves_average_to_the_whole_except_where_logits_are_held_against_a_mean(kind):
    draw = torch.Generator().manual_seed(0)
    real, made = (torch.randn(8, generator=draw, dtype=torch.float64) * 3 for _ in range(2))
    for loss in (discriminator_loss, generator_loss):
        whole = loss(kind, real, made)
        halves = (loss(kind, real[:4], made[:4]) + loss(kind, real[4:], made[4:])) / 2
        assert torch.allclose(whole, halves, rtol=1e-12) == (kind != "relativistic_average")


def test_an_unknown_loss_is_refused_with_the_known_ones():
    for loss in (discriminator_loss, generator_loss):
        with pytest.raises(ValueError, match=r"unknown adversarial loss 'lsgan'; this eosr knows vanilla, hinge, rel"):
            loss("lsgan", REAL, MADE)


def test_which_generator_losses_look_at_real_logits():
    for kind in ADVERSARIAL:
        real = REAL.clone().requires_grad_()
        loss = generator_loss(kind, real, MADE.clone().requires_grad_())
        (gradient,) = torch.autograd.grad(loss, real, allow_unused=True)
        assert (gradient is not None and bool((gradient != 0).any())) == needs_real(kind)


class Linear(nn.Module):
    """C(x) = w . x: its gradient is w wherever one looks."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, bands, condition):
        return (bands * self.weight).flatten(1).sum(dim=1)


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope():
    """||w|| = 5, so (5 - 1)^2 = 16; its derivative with respect to w is 2 * 4 * w / 5."""
    weight = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
    critic = Linear(weight)
    pixels = torch.rand(3, 1, 1, 2, dtype=torch.float64)
    penalty = gradient_penalty(critic, pixels, -pixels, None, torch.full((3, 1, 1, 1), 0.3, dtype=torch.float64))
    assert penalty.item() == pytest.approx(16)
    penalty.backward()
    torch.testing.assert_close(critic.weight.grad, 8 * weight / 5)


def test_the_penalty_is_taken_between_real_and_made_where_t_says():
    """C(x) = sum x^2 has the gradient 2 x: at t real + (1 - t) made = 0.25 * 4 + 0.75 * 0 = 1 in one pixel, norm 2."""
    real, made = torch.full((1, 1, 1, 1), 4.0), torch.zeros(1, 1, 1, 1)
    penalty = gradient_penalty(
        lambda x, c: x.square().flatten(1).sum(1), real, made, None, torch.full((1, 1, 1, 1), 0.25)
    )
    assert penalty.item() == pytest.approx((2 - 1) ** 2)


@pytest.mark.parametrize("kind", ["vgg", "patch"])
def test_the_derivative_of_the_penalty_with_respect_to_the_weights_is_that_of_finite_differences(kind):
    torch.manual_seed(0)
    config = DiscriminatorConfig(kind=kind, bands=2, condition=1, features=2, stages=1)
    critic = build_discriminator(config).double()
    draw = torch.Generator().manual_seed(1)
    real, made = (torch.rand(2, 2, 8, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    condition = torch.rand(2, 1, 8, 8, generator=draw, dtype=torch.float64)
    t = torch.rand(2, 1, 1, 1, generator=draw, dtype=torch.float64)

    def penalty():
        return gradient_penalty(critic, real, made, condition, t)

    penalty().backward()
    for parameter in (critic.layers[0].weight, critic.last.weight):
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for place in (0, flat.numel() // 2, flat.numel() - 1):
            step, before = 1e-6, flat[place].item()
            values = []
            for shift in (step, -step):
                flat[place] = before + shift
                values.append(penalty().item())
            flat[place] = before
            assert gradient[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-9)


def test_the_penalty_of_halves_averages_to_that_of_the_whole():
    torch.manual_seed(0)
    critic = build_discriminator(DiscriminatorConfig(bands=2, condition=0, features=2, stages=1)).double()
    draw = torch.Generator().manual_seed(1)
    real, made = (torch.rand(4, 2, 8, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    t = torch.rand(4, 1, 1, 1, generator=draw, dtype=torch.float64)
    whole = gradient_penalty(critic, real, made, None, t)
    halves = [gradient_penalty(critic, real[p], made[p], None, t[p]) for p in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_the_penalty_of_a_flat_critic_is_one_and_its_derivative_a_number():
    """Its gradient is 0, where a norm has no derivative."""
    critic = Linear(torch.zeros(1, 1, 1, 2))
    pixels = torch.rand(2, 1, 1, 2)
    penalty = gradient_penalty(critic, pixels, -pixels, None, torch.full((2, 1, 1, 1), 0.5))
    assert penalty.item() == 1
    penalty.backward()
    assert torch.isfinite(critic.weight.grad).all()


@pytest.mark.parametrize("kind", ["vgg", "patch"])
def test_the_logits_of_patches_are_averaged_before_the_penalty(kind):
    """Norm 1 is asked of the slope of the mean logit, however many places there are; ten times it is (10 n - 1)^2."""
    torch.manual_seed(0)
    critic = build_discriminator(DiscriminatorConfig(kind=kind, bands=1, condition=0, features=4, stages=1)).double()
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(image, None).mean(), image)
    here = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for times in (1, 10):
        penalty = gradient_penalty(lambda x, c, n=times: n * critic(x, c), image, image, None, here)
        assert penalty.item() == pytest.approx((times * slope.norm().item() - 1) ** 2)


def test_a_critic_with_spectral_norm_is_looked_at_three_times_before_its_step():
    torch.manual_seed(0)
    config = DiscriminatorConfig(bands=2, condition=0, features=4, stages=1, spectral_norm=True)
    critic = build_discriminator(config).double().train()
    real, made = (torch.rand(2, 2, 8, 8, dtype=torch.float64) for _ in range(2))
    loss = discriminator_loss("wgan_gp", critic(real, None), critic(made, None))
    loss = loss + 10 * gradient_penalty(critic, real, made, None, torch.rand(2, 1, 1, 1, dtype=torch.float64))
    loss.backward()
    trained = [parameter.grad for parameter in critic.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in trained)


def test_clipped_weights_stay_within_their_limit_and_others_are_left():
    critic = Linear(torch.tensor([[[[0.5, -0.005]]]]))
    clip_weights(critic, 0.01)
    torch.testing.assert_close(critic.weight.data, torch.tensor([[[[0.01, -0.005]]]]))


def test_the_ratio_of_gradients_is_that_of_their_norms_and_squares_of_halves_add_up():
    """d/dx of 3 |x| and of 4 * (x0 + x1): (3, 3) and (4, 4)."""
    at = torch.ones(2, requires_grad=True)
    assert gradient_ratio(3 * at.abs().sum(), 4 * at.sum(), at) == pytest.approx(4 / 3)
    whole = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64, requires_grad=True)
    squares = gradient_squares(whole.square().mean(), whole.exp().mean(), whole)
    parts = []
    for part in (slice(0, 2), slice(2, 4)):
        own = whole.detach()[part].clone().requires_grad_()
        parts.append(gradient_squares(own.square().mean(), own.exp().mean(), own))
    torch.testing.assert_close(sum(parts) / 4, squares)
