"""Window attention against a dense softmax written with loops; its memory, and what shifts with what."""

import numpy as np
import pytest
import torch

from eosr.nn.options.attention import BLOCK, WindowAttention
from nn.made import scatter

torch.set_num_threads(1)


def attention(features=16, margin=6):
    torch.manual_seed(0)
    return scatter(WindowAttention(features, margin), 0.4).requires_grad_(False)


def dense(layer, x):
    """SAGAN's formula in numpy: every query against all keys, softmax over those in the window of its block."""

    def mapped(convolution):
        weight = convolution.weight[:, :, 0, 0].numpy().astype(np.float64)
        return np.einsum("oc,cyx->oyx", weight, x) + convolution.bias.numpy()[:, None, None]

    def pooled(image):
        c, h, w = image.shape
        return image.reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4)).reshape(c, -1)

    _, height, width = x.shape
    query, key, value = mapped(layer.theta), pooled(mapped(layer.phi)), pooled(mapped(layer.g))
    ky, kx = (2 * a.ravel() for a in np.mgrid[: height // 2, : width // 2])
    seen = np.empty((value.shape[0], height, width))
    for y in range(height):
        for column in range(width):
            top, left = y // BLOCK * BLOCK - layer.margin, column // BLOCK * BLOCK - layer.margin
            side = BLOCK + 2 * layer.margin
            inside = (ky >= top) & (ky < top + side) & (kx >= left) & (kx < left + side)
            logits = np.where(inside, query[:, y, column] @ key, -np.inf)
            weights = np.exp(logits - logits.max())
            seen[:, y, column] = value @ (weights / weights.sum())
    weight = layer.o.weight[:, :, 0, 0].numpy()
    out = np.einsum("oc,cyx->oyx", weight, seen) + layer.o.bias.numpy()[:, None, None]
    return x + layer.gamma.item() * out


@pytest.mark.parametrize("margin", [2, 6])
def test_the_answer_is_that_of_a_dense_masked_softmax(margin):
    layer = attention(margin=margin)
    x = torch.randn(1, 16, 30, 24)
    np.testing.assert_allclose(layer(x)[0], dense(layer, x[0].double().numpy()), atol=2e-5)


def test_it_has_the_published_number_of_parameters():
    """theta and phi 128 -> 16, g 128 -> 64, o 64 -> 128, with biases, and gamma."""
    count = sum(p.numel() for p in WindowAttention(128).parameters())
    assert count == 2 * (128 * 16 + 16) + (128 * 64 + 64) + (64 * 128 + 128) + 1 == 20_705


def test_it_starts_as_the_identity():
    x = torch.randn(1, 16, 12, 12)
    assert torch.equal(WindowAttention(16)(x), x)


def test_memory_grows_with_the_area_of_a_tile_and_not_with_its_square(monkeypatch):
    layer, counted = attention(), []
    real = torch.nn.functional.scaled_dot_product_attention

    def counting(query, key, value, **options):
        logits = query.shape[:-1].numel() * key.shape[-2]
        counted.append(logits + query.numel() + key.numel() + value.numel() + options["attn_mask"].numel())
        return real(query, key, value, **options)

    monkeypatch.setattr("eosr.nn.options.attention.functional.scaled_dot_product_attention", counting)
    for side in (24, 48, 96):
        layer(torch.zeros(1, 16, side, side))
    assert counted[2] == 4 * counted[1] == 16 * counted[0]


def test_the_answer_moves_with_the_scene_by_whole_blocks():
    layer = attention()
    x = torch.randn(1, 16, 48, 48)
    whole, moved = layer(x), layer(x[..., 6:, 6:])
    torch.testing.assert_close(moved[..., 6:, 6:], whole[..., 12:, 12:], atol=1e-5, rtol=1e-5)


def test_nothing_beyond_its_reach_changes_a_pixel_and_the_last_pixel_within_does():
    layer = attention()
    x = torch.randn(1, 16, 48, 48).requires_grad_()
    # Pixel 24 is the first of its block: the window ends reach = 5 + 6 pixels after it.
    layer(x)[0, :, 24, 24].sum().backward()
    columns = (x.grad.abs().sum((0, 1, 2)) > 0).nonzero().flatten()
    assert columns.min() >= 24 - layer.margin
    assert 24 + layer.reach - 1 <= columns.max() <= 24 + layer.reach  # max pooling passes on one pixel of two


def test_pixels_beyond_the_edge_take_no_part():
    """With all keys equal the answer is the mean of the values there are; zeros from beyond would pull it down."""
    layer = attention()
    x = torch.ones(1, 16, 12, 12)
    answer = layer(x)
    torch.testing.assert_close(answer, answer[..., :1, :1].expand_as(answer), atol=1e-5, rtol=1e-5)
