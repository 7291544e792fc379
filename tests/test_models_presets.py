"""Presets are the networks that were published, layer by layer, written out here by hand."""

from typing import Any

import torch
from torch import Tensor

from neuralpde import data
from neuralpde.models import Recipe, chosen
from neuralpde.operators import sheaf_laplacian

CLUB = data.load("karate").graph
SEND, RECEIVE = CLUB.edge_index


def built(name: str, model: str) -> tuple[Recipe, Any, Tensor]:
    recipe, _ = chosen(name, model, 9, 3)
    x = torch.randn(34, 9, dtype=torch.float64)
    return recipe, recipe.build().double().eval(), x


def plain(linear: Any, x: Tensor) -> Tensor:
    out: Tensor = x @ linear.weight.T
    return out if linear.bias is None else out + linear.bias


def neighbours(x: Tensor) -> Tensor:
    """The mean over those that send."""
    total = torch.zeros_like(x).index_add(0, RECEIVE, x[SEND])
    return total / torch.bincount(RECEIVE, minlength=34)[:, None]


def test_gated_layers_keep_what_their_gates_close() -> None:
    recipe, model, x = built("Texas", "g2")
    hidden, conv = torch.relu(plain(model.encoder[0].linear, x)), model.field.field.conv
    for _ in range(6):
        moved = torch.relu(plain(conv.lin_l, neighbours(hidden)) + plain(conv.lin_r, hidden))
        apart = (moved[SEND] - moved[RECEIVE]).abs() ** 2.5
        rate = torch.zeros_like(moved).index_add(0, RECEIVE, apart)
        rate = torch.tanh(rate / torch.bincount(RECEIVE, minlength=34)[:, None])
        hidden = (1 - rate) * hidden + rate * moved
    # The state is not negative: the relu before the decoder changes nothing.
    torch.testing.assert_close(model(x, CLUB), plain(model.decoder[2], hidden))
    assert (recipe.input_dropout, recipe.dropout) == (0.5, 0.1)


def test_oscillators_swing_without_springs_and_friction() -> None:
    _, model, x = built("Wisconsin", "graphcon")
    position = torch.relu(plain(model.encoder[0].linear, x))
    velocity, field = position, model.field
    degrees = torch.bincount(RECEIVE, minlength=34)[:, None] + 1.0
    for _ in range(2):
        scaled = position / degrees.sqrt()
        spread = (scaled + torch.zeros_like(scaled).index_add(0, RECEIVE, scaled[SEND])).double()
        mixed = spread / degrees.sqrt() @ field.coupling.weight.T
        velocity = velocity + torch.relu(mixed + plain(field.residual, position))
        position = position + velocity
    torch.testing.assert_close(model(x, CLUB), plain(model.decoder[2], torch.relu(position)))


def test_sheaves_learn_their_maps_anew_in_every_layer() -> None:
    recipe, model, x = built("Texas", "sheaf")
    hidden = torch.nn.functional.elu(plain(model.encoder[0].linear, x)).view(34, 3, 20)
    assert len(model.field.pieces) == recipe.layers == 4
    for piece in model.field.pieces:
        maps = piece.maps(CLUB, hidden.flatten(1))
        L = sheaf_laplacian(CLUB, maps, "augmented").to_dense().view(34 * 3, 34 * 3)
        mixed = torch.einsum("ij,njk,kl->nil", piece.left, hidden, piece.right)
        slope = (L @ mixed.reshape(34 * 3, 20)).view(34, 3, 20)
        hidden = hidden - torch.nn.functional.elu(slope)
    last = torch.nn.functional.elu(hidden.flatten(1))
    torch.testing.assert_close(model(x, CLUB), plain(model.decoder[2], last))
