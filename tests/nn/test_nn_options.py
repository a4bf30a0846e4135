"""The networks of the related work: their size by hand, their reach by gradients, the same answer in every tile."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from eosr.errors import WeightsError
from eosr.nn.kinds import build_generator
from eosr.nn.options import OPTIONS
from eosr.nn.options.attention import BLOCK
from eosr.nn.options.pannet import high_pass
from eosr.nn.options.rrdb import DenseBlock
from eosr.nn.options.second_order import matrix_sqrt
from eosr.nn.options.windows import last_in_window, window_covariance, window_mean
from eosr.nn.weights import load_weights, save_weights
from nn.made import inputs_of, scatter, small_weights

torch.set_num_threads(1)
TWENTY, SIXTY = {}, {"factor": 6, "targets": 2, "middle_guides": 6}
#: Every kind, narrow and short; EDSR on both grids.
SMALL = {
    "srcnn": {"features": 6, "mapped": 4},
    "vdsr": {"features": 4, "depth": 5},
    "edsr": {"features": 4, "blocks": 2},
    "edsr coarse": {"features": 4, "blocks": 1, "grid": "coarse"},
    "rrdb": {"features": 4, "growth": 2, "blocks": 1},
    "channel_attention": {"features": 4, "blocks": 2, "reduction": 2},
    "second_order": {"features": 4, "groups": 2, "blocks": 1, "reduction": 2},
    "single_input": {"features": 4, "blocks": 2},
    "pannet": {"features": 4, "blocks": 1},
    "psgan": {"features": 2},
    "drcn": {"features": 4, "recursions": 3},
}
each_kind = pytest.mark.parametrize("name", SMALL)
both_factors = pytest.mark.parametrize("bands", [TWENTY, SIXTY], ids=["20 m", "60 m"])


def built(name, **settings):
    torch.manual_seed(0)
    return build_generator(name.split()[0], SMALL[name] | settings)


def scattered(name, **settings):
    """Random weights in float64, of about the size that keeps a signal's size; small ones in the fixed windows too."""
    generator = built(name, **settings).double().requires_grad_(False)
    for parameter in generator.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 4
        torch.nn.init.normal_(parameter, 0, (2 / inputs) ** 0.5)
    return generator


def opened(name, **settings):
    """Positive weights: no ReLU is shut and nothing cancels, so every pixel that may count does."""
    generator = built(name, **settings)
    for parameter in generator.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 1
        torch.nn.init.uniform_(parameter, 0.5 / inputs, 1.5 / inputs)
    return generator.requires_grad_(False)


def exact(inputs):
    return {name: None if tensor is None else tensor.double() for name, tensor in inputs.items()}


def bilinear_of(generator, inputs):
    return functional.interpolate(inputs["coarse"], scale_factor=generator.config.factor, mode="bilinear")


def conv(kernel, before, after):
    """Parameters of one convolution: weights and biases."""
    return kernel * kernel * before * after + after


def counted(kind, joined, targets, *, factor=2, streams=2, enters=(4, 6)):
    """Parameters of the default configuration of a kind, added up by hand from its paper's layers."""
    pair, gate = 2 * conv(3, 64, 64), conv(1, 64, 4) + conv(1, 4, 64)
    dense = sum(conv(3, 64 + 32 * i, 32) for i in range(4)) + conv(3, 64 + 4 * 32, 64)
    wide = 2 * conv(3, 128, 128) + conv(1, 128, 8) + conv(1, 8, 128)
    folded = factor**2 * 4 + (factor // 2) ** 2 * (joined - 4 - targets) + targets
    return {
        "srcnn": conv(9, joined, 64) + conv(1, 64, 32) + conv(5, 32, targets),
        "vdsr": conv(3, joined, 64) + 18 * conv(3, 64, 64) + conv(3, 64, targets),
        "edsr": conv(3, joined, 64) + 16 * pair + conv(3, 64, 64) + conv(3, 64, targets),
        "edsr coarse": conv(3, folded, 64) + 16 * pair + conv(3, 64, 64) + conv(3, 64, targets * factor**2),
        "rrdb": conv(3, joined, 64) + 4 * 3 * dense + 2 * conv(3, 64, 64) + conv(3, 64, targets),
        "channel_attention": conv(3, joined, 128) + 6 * wide + conv(3, 128, targets),
        # Four groups of two blocks, a gate and a convolution; the shared factor; the convolution before the tail.
        "second_order": (
            conv(3, joined, 64) + 4 * (2 * pair + gate + conv(3, 64, 64)) + 1 + conv(3, 64, 64) + conv(3, 64, targets)
        ),
        "single_input": conv(3, targets, 64) + 6 * pair + conv(3, 64, targets),
        "pannet": conv(3, joined, 32) + 4 * 2 * conv(3, 32, 32) + conv(3, 32, targets),
        "psgan": (
            sum(conv(3, n, 32) + conv(3, 32, 32) + conv(2, 32, 64) for n in enters)
            + conv(3, 64 * streams, 128) + conv(3, 128, 128)
            + conv(3, 128, 256) + conv(3, 256, 256) + conv(1, 256, 128 * 9)
            + conv(3, 256, 128) + conv(1, 128, 64 * 4)
            + conv(3, 64 + 32 * streams, 64) + conv(3, 64, targets)
        ),
        # Two in, the shared one, one out, the tail; a weight for each of sixteen recursions.
        "drcn": conv(3, joined, 64) + 3 * conv(3, 64, 64) + conv(3, 64, targets) + 16,
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "twenty", "sixty"),
    [
        ("srcnn", 58_790, 65_954),
        ("vdsr", 673_990, 672_834),
        ("edsr", 1_227_910, 1_226_754),
        ("edsr coarse", 1_245_208, 1_375_432),
        ("rrdb", 2_960_838, 2_959_682),
        ("channel_attention", 1_802_678, 1_800_370),
        ("second_order", 787_095, 785_939),
        ("single_input", 450_118, 445_506),
        ("pannet", 78_630, 78_050),
        ("psgan", 1_919_750, 2_027_714),
        ("drcn", 120_086, 118_930),
    ],
)
def test_parameter_counts_are_those_worked_out_by_hand(name, twenty, sixty):
    grid = {"grid": "coarse"} if "coarse" in name else {}
    first, second = (build_generator(name.split()[0], grid | bands) for bands in (TWENTY, SIXTY))
    held = [sum(p.numel() for p in generator.parameters()) for generator in (first, second)]
    assert held == [twenty, sixty]
    # 4 + 6 bands are joined for 20 m, 4 + 6 + 2 for 60 m.
    assert twenty == counted(name, 10, 6)
    assert sixty == counted(name, 12, 2, factor=6, streams=3, enters=(4, 6, 2))


def test_channel_attention_adds_what_the_paper_says_to_a_residual_net():
    """Two 1 x 1 convolutions of 128 x 128 / 16 weights and their biases per block."""
    small, wide = (build_generator("channel_attention", {"blocks": blocks}) for blocks in (5, 6))
    plain = 2 * (9 * 128 * 128 + 128)
    per_block = sum(p.numel() for p in wide.parameters()) - sum(p.numel() for p in small.parameters())
    assert per_block - plain == 2 * 128 * 128 // 16 + 8 + 128


def test_the_23_blocks_of_the_paper_are_an_option_of_rrdb():
    """A residual-in-residual block has three dense blocks: 3 (64 + 96 + 128 + 160) 32 9 + 3 192 64 9, with biases."""
    block = 3 * (9 * 32 * (64 + 96 + 128 + 160) + 4 * 32 + 9 * 192 * 64 + 64)
    with torch.device("meta"):
        full = build_generator("rrdb", {"blocks": 23})
    assert sum(p.numel() for p in full.parameters()) == 2_960_838 + 19 * block == 16_629_894


@both_factors
@each_kind
def test_reach_is_exactly_enough(name, bands):
    """The last pixel that counts is the one worked out, from every place in a block; reach is rounded up to a step."""
    generator = opened(name, **bands).double()
    s, reach = generator.config.factor, generator.reach
    step = math.lcm(generator.block, s)
    middle = -(-(reach + 12) // 12) * 12
    inputs = exact(inputs_of(generator, 2 * middle))
    farthest = 0
    for pixel in range(middle, middle + step):
        ends = []
        seen = {key: t.clone().requires_grad_() for key, t in inputs.items() if t is not None and key != "sigma"}
        generator(**{**inputs, **seen})[0, :, pixel, pixel].sum().backward()
        for key, tensor in seen.items():
            side = {"fine": 1, "coarse": s, "middle": 2}[key]
            # A band that is not used at all, as by single_input, has no gradient.
            counts = [] if tensor.grad is None else (tensor.grad.abs().sum((0, 1, 2)) > 0).nonzero().flatten().tolist()
            ends += [end for i in counts for end in (i * side, i * side + side - 1)]
        assert max(ends) == generator.last_read(pixel)
        farthest = max(farthest, max(ends) - pixel, pixel - min(ends))
    assert reach - step < farthest <= reach
    assert reach % step == 0


@pytest.mark.parametrize(("name", "side"), [("srcnn", 13), ("vdsr", 41)])
def test_the_receptive_field_is_the_published_one(name, side):
    """SRCNN 9 + 5 - 1; VDSR 2 x 20 + 1; of the 10 m bands, which nothing is interpolated from."""
    generator = opened(name, **({"depth": 20} if name == "vdsr" else {}))
    inputs = inputs_of(generator, 48)
    inputs["fine"].requires_grad_()
    generator(**inputs)[0, :, 24, 24].sum().backward()
    columns = (inputs["fine"].grad.abs().sum((0, 1, 2)) > 0).nonzero().flatten()
    assert columns.max() - columns.min() + 1 == side


@both_factors
@each_kind
def test_a_tile_cut_with_reach_gives_the_pixels_of_the_whole_scene(name, bands):
    """The tile starts at an odd multiple of 6 pixels, as tiles may; at 20 m its size is no multiple of 6."""
    generator = scattered(name, **bands)
    s, reach = generator.config.factor, generator.reach
    first = -(-reach // 12) * 12 + 6
    last = first + (8 if s == 2 else 6)
    inputs = exact(inputs_of(generator, -(-(last + reach + 18) // 12) * 12))
    whole = generator(**inputs)[..., first:last, first:last]
    top, end = first - reach, last + reach
    part = {"sigma": inputs["sigma"], "middle": None}
    for key, step in (("fine", 1), ("coarse", s), *([("middle", 2)] if inputs["middle"] is not None else [])):
        part[key] = inputs[key][..., top // step : end // step, top // step : end // step]
    answer = generator(**part)
    assert answer.shape[-1] == end - top
    torch.testing.assert_close(answer[..., reach:-reach, reach:-reach], whole, atol=1e-9, rtol=1e-9)
    # Random weights: the network says something of its own.
    assert (answer - bilinear_of(generator, part)).std() > 1e-3


@both_factors
@each_kind
def test_an_untrained_generator_is_close_to_bilinear(name, bands):
    generator = built(name, **bands).requires_grad_(False)
    inputs = inputs_of(generator, 48)
    assert 0 < (generator(**inputs) - bilinear_of(generator, inputs)).abs().max() < 0.05


@each_kind
def test_every_band_counts_and_for_single_input_the_finer_ones_do_not(name):
    generator = opened(name, **SIXTY)
    inputs = inputs_of(generator, 24)
    names = ("fine", "coarse", "middle")
    for key in names:
        inputs[key].requires_grad_()
    # One pixel, because high-pass bands sum to almost nothing over all of them.
    generator(**inputs)[0, :, 13, 13].sum().backward()
    for key in names:
        gradient = inputs[key].grad
        if name == "single_input" and key != "coarse":
            assert gradient is None
        else:
            assert (gradient.abs().sum((0, 2, 3)) > 0).all(), key


@each_kind
def test_a_few_steps_of_training_reduce_the_loss(name):
    """Waves of 7 to 20 pixels, their block means, and four mixtures of them as guides."""
    bigger = {key: 16 for key in SMALL[name] if key == "features"} | ({"reduction": 4} if "order" in name else {})
    generator = built(name, **bigger)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    draws = np.random.default_rng(5).uniform(0, 2 * np.pi, (6, 3))
    waves = [torch.sin(a + 2 * np.pi * (x * np.cos(b) + y * np.sin(b)) / (7 + 2 * c)) for a, b, c in draws]
    truth = torch.stack(waves)[None]
    fine, coarse = truth[:, :4] + truth[:, 2:], functional.avg_pool2d(truth, 2)
    optimiser = torch.optim.Adam(generator.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = ((generator(fine, coarse, torch.zeros(1, 6)) - truth) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    after = ((generator(fine, coarse, torch.zeros(1, 6)) - truth) ** 2).mean().item()
    assert after < 0.7 * losses[0]


@both_factors
@each_kind
def test_a_generator_comes_back_from_its_weights_file(name, bands, tmp_path):
    generator = scatter(built(name, **bands))
    back = load_weights(save_weights(small_weights(generator), tmp_path / "w.safetensors")).generator
    assert type(back) is type(generator)
    assert back.config == generator.config
    assert json.loads(json.dumps(generator.settings())) == generator.settings()
    inputs = inputs_of(generator, 24)
    with torch.no_grad():
        assert torch.equal(back(**inputs), generator(**inputs))
    assert not back.told


def test_every_option_is_a_kind_of_its_own():
    kinds = [generator.kind for generator, _ in OPTIONS]
    assert sorted(kinds) == sorted({name.split()[0] for name in SMALL})
    for kind in kinds:
        with pytest.raises(TypeError, match="'colour'"):
            build_generator(kind, {"colour": 3})


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("srcnn", {"features": 0}, "features = 0 cannot work; give a whole number of 1 or more"),
        ("srcnn", {"factor": 3}, "factor = 3 cannot work; give 2 (20 m -> 10 m) or 6 (60 m -> 10 m)"),
        ("srcnn", {"middle_guides": -1}, "middle_guides = -1 cannot work; give a whole number of 0 or more"),
        ("vdsr", {"depth": 1}, "depth = 1 cannot work; give 2 or more: one convolution in, one out"),
        ("vdsr", {"depth": "20"}, "depth = '20' cannot work; give a whole number of 1 or more"),
        ("edsr", {"grid": "middle"}, "grid 'middle' is not one of 'fine', 'coarse'"),
        ("edsr", {"scaling": 0}, "scaling = 0 cannot work; give a number of more than 0"),
        ("edsr", {"scaling": math.nan}, "scaling = nan cannot work; give a number of more than 0"),
        ("rrdb", {"growth": 2.5}, "growth = 2.5 cannot work; give a whole number of 1 or more"),
        ("channel_attention", {"pooling": "global"}, "pooling 'global' is not one of 'window', 'tile'"),
        ("channel_attention", {"margin": 8}, "margin = 8 cannot work; give a multiple of 6 pixels, e.g. 12"),
        (
            "second_order",
            {"features": 40},
            "features = 40 cannot work with reduction = 16; give a multiple of it",
        ),
        ("pannet", {"radius": 0}, "radius = 0 cannot work; give a whole number of 1 or more"),
        ("drcn", {"recursions": True}, "recursions = True cannot work; give a whole number of 1 or more"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_in_one_sentence(kind, settings, said):
    with pytest.raises(ValueError, match=r"give|not one of") as caught:
        build_generator(kind, settings)
    assert str(caught.value) == said


def test_pooling_over_the_tile_depends_on_the_tile_so_it_declares_no_reach():
    generator = scattered("channel_attention", pooling="tile")
    inputs = exact(inputs_of(generator, 96))
    before = generator(**inputs)[0, :, 0, 0]
    inputs["fine"][..., -1, -1] += 50
    assert (generator(**inputs)[0, :, 0, 0] - before).abs().max() > 1e-6
    with pytest.raises(WeightsError, match=r"sees the whole tile.*Retrain it with pooling='window'"):
        _ = generator.reach


def loop_over_windows(x, margin, of):
    """What ``of`` makes of the pixels of every block and its margin that are there, (r, c, ...)."""
    _, height, width = x.shape
    rows = []
    for top in range(0, height, BLOCK):
        ends = slice(max(top - margin, 0), top + BLOCK + margin)
        starts = range(0, width, BLOCK)
        rows.append([of(x[:, ends, max(left - margin, 0) : left + BLOCK + margin]) for left in starts])
    return np.array(rows)


@pytest.mark.parametrize("margin", [0, 6, 12])
def test_a_window_mean_is_the_mean_of_the_pixels_of_the_window(margin):
    x = torch.randn(1, 3, 30, 24, dtype=torch.float64)
    expected = loop_over_windows(x[0].numpy(), margin, lambda window: window.mean(axis=(1, 2)))
    np.testing.assert_allclose(window_mean(x, margin)[0].permute(1, 2, 0), expected, atol=1e-12)


@pytest.mark.parametrize("statistics", [window_mean, lambda x, m: window_covariance(x, m).permute(0, 3, 4, 1, 2)])
def test_a_window_ends_where_it_is_said_to_end(statistics):
    x = torch.randn(1, 2, 36, 36).requires_grad_()
    for pixel in (12, 17):
        x.grad = None
        statistics(x, 6)[..., pixel // BLOCK, pixel // BLOCK].sum().backward()
        columns = (x.grad.abs().sum((0, 1, 2)) > 0).nonzero()
        assert (columns.min(), columns.max()) == (6, 23)
        assert last_in_window(pixel, 6) == 23


def test_a_partial_block_at_the_end_of_a_tile_is_a_mean_of_what_is_there():
    x = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    expected = loop_over_windows(x[0].numpy(), 0, lambda window: window.mean(axis=(1, 2)))
    np.testing.assert_allclose(window_mean(x, 0)[0].permute(1, 2, 0), expected, atol=1e-12)


@pytest.mark.parametrize("margin", [0, 6])
def test_a_window_covariance_is_that_of_the_pixels_of_the_window(margin):
    """Away from the edge, where blocks are repeated outwards; far from zero, where a difference of means would fail."""
    x = torch.randn(1, 3, 30, 24) + torch.linspace(0, 5, 24) + 1000
    covariance = window_covariance(x, margin)[0, 1:-1, 1:-1]
    expected = loop_over_windows(x[0].double().numpy(), margin, lambda w: np.cov(w.reshape(3, -1), bias=True).ravel()
                                 if w[0].size == (BLOCK + 2 * margin) ** 2 else np.full(9, np.nan))  # fmt: skip
    np.testing.assert_allclose(covariance.flatten(2), expected[1:-1, 1:-1], rtol=1e-3, atol=1e-3)


def test_newton_schulz_finds_the_square_root_that_eigenvectors_give():
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    values = np.array([3.0, 2.5, 2.0, 4.0, 3.5])
    matrix = torch.from_numpy(vectors * values @ vectors.T)
    root = vectors * np.sqrt(values) @ vectors.T
    np.testing.assert_allclose(matrix_sqrt(matrix, 5), root, atol=0.01)
    np.testing.assert_allclose(matrix_sqrt(matrix, 12), root, atol=1e-12)
    assert torch.equal(matrix_sqrt(torch.zeros(4, 4), 5), torch.zeros(4, 4))


def test_the_source_is_shared_by_one_factor_that_starts_at_zero():
    generator = built("second_order").requires_grad_(False)
    inputs = inputs_of(generator, 24)
    assert generator.trunk[1].share.item() == 0
    before = generator(**inputs)
    generator.trunk[1].share.fill_(0.5)
    assert (generator(**inputs) - before).abs().max() > 0


def test_pannet_carries_over_to_another_brightness():
    """Every input raised by 5 gives the answer raised by 5; for a net that sees the bands themselves it does not."""
    for name, carries in (("pannet", True), ("edsr", False)):
        generator = scattered(name, **SIXTY)
        inputs = exact(inputs_of(generator, 36))
        raised = {key: t if key == "sigma" else t + 5 for key, t in inputs.items()}
        assert torch.allclose(generator(**raised), generator(**inputs) + 5, atol=1e-9) is carries


def test_high_pass_takes_out_the_mean_of_the_paper_s_box():
    """One bright pixel of 25: 24 of it stay, and its neighbours within two pixels lose 1."""
    band = torch.zeros(1, 1, 9, 9)
    band[..., 4, 4] = 25
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7] = -1
    expected[4, 4] = 24
    torch.testing.assert_close(high_pass(band, 2)[0, 0], expected)


def test_the_coarse_trunk_runs_on_the_pixels_of_the_target_bands():
    for bands, channels in ((TWENTY, 4 * 4 + 6), (SIXTY, 36 * 4 + 9 * 6 + 2)):
        generator = built("edsr coarse", **bands)
        seen = []
        generator.trunk[0].register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].shape))
        generator(**inputs_of(generator, 48))
        side = 48 // generator.config.factor
        assert seen == [(1, channels, side, side)]


def test_a_dense_block_sees_everything_made_before():
    """Written out with growth 1 and 1 x 1 supports: every kernel's middle is one, so layers add up what they see."""
    block = DenseBlock(1, 1, 0.2).requires_grad_(False)
    for parameter in block.parameters():
        parameter.zero_()
    for layer in [*block.grow, block.shrink]:
        layer.weight[:, :, 1, 1] = 1
    # 3; 3; 3 + 3 = 6; 12; 24; their sum 48; 3 + 0.2 x 48.
    assert block(torch.full((1, 1, 3, 3), 3.0)).flatten().tolist() == pytest.approx([12.6] * 9)


def test_the_answer_of_drcn_is_the_weighted_mean_of_its_estimates():
    generator = scattered("drcn")
    inputs = exact(inputs_of(generator, 24))
    estimates = generator.estimates(inputs["fine"], inputs["coarse"])
    assert estimates.shape == (3, 1, 6, 24, 24)
    assert (estimates[0] - estimates[2]).abs().max() > 1e-3
    generator.logits.copy_(torch.log(torch.tensor([1.0, 2.0, 5.0])))
    expected = (1 * estimates[0] + 2 * estimates[1] + 5 * estimates[2]) / 8
    torch.testing.assert_close(generator(**inputs), expected)


def test_the_recursions_of_drcn_share_their_weights_and_start_as_the_identity():
    few, many = (built("drcn", recursions=n).requires_grad_(False) for n in (2, 9))
    assert sum(p.numel() for p in many.parameters()) - sum(p.numel() for p in few.parameters()) == 7
    inputs = inputs_of(few, 24)
    estimates = few.estimates(inputs["fine"], inputs["coarse"])
    torch.testing.assert_close(estimates[0], estimates[1])


def test_the_streams_of_psgan_meet_on_the_20_m_and_the_60_m_grid():
    generator = built("psgan", **SIXTY)
    sides = []
    for part in (generator.trunk.fuse, generator.trunk.deep[0]):
        part.register_forward_hook(lambda _, __, made: sides.append(made.shape[-1]))
    generator(**inputs_of(generator, 48))
    assert sides == [24, 8]
    assert len(generator.trunk.enter) == 3


@each_kind
def test_reduced_precision_keeps_more_than_bfloat16_digits(name):
    """The upsampled bands stay float32: 4000 DN come in steps of 16 in bfloat16."""
    generator = built(name).requires_grad_(False)
    inputs = inputs_of(generator, 24)
    inputs["coarse"] += 2
    expected = generator(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = generator(**inputs)
    assert reduced.dtype == torch.float32
    assert (reduced - expected).abs().max() < 2e-3 < 2 * 2**-8
