"""Stacks: residual blocks with flows, convolutions or nothing in them, and their frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import BundleDiffusion, Heat
from neuralpde.fields.maps import Frames
from neuralpde.fields.registry import FIELDS
from neuralpde.models import Block, Convolutions, NodeModel, Recipe, Stack, load, save
from neuralpde.models.recipe import MODELS, TRAINABLE
from neuralpde.operators import orthogonal
from neuralpde.operators.bundle import framed, unframed
from neuralpde.testing import check_field

DOUBLE = torch.float64
KIND = {"stacked": True, "input_dropout": 0.0, "dropout": 0.0}


class Given(nn.Module):
    """Frames that do not depend on the state."""

    def __init__(self, frames: Tensor) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.frames


def barbell() -> Graph:
    return catalogue.barbell(3, 1)


def turns(nodes: int, bundles: int = 2, stalk: int = 2) -> Tensor:
    numbers = torch.randn(nodes * bundles, stalk * (stalk - 1) // 2, dtype=DOUBLE)
    return orthogonal(numbers, stalk).reshape(nodes, bundles, stalk, stalk)


def heat(width: int, t: float = 0.7, norm: str = "sym") -> NodeModel:
    return NodeModel(nn.Identity(), Heat(norm), nn.Identity(), channels=width, end=t, rtol=1e-12)


def bundle(frames: Tensor, width: int, *, separate: bool = True) -> Block:
    made = Block(
        width, heat(width), frames=Given(frames), separate=separate, act=nn.Tanh(), norm=False
    )
    return made.double()


@pytest.mark.parametrize(("bundles", "stalk", "share"), [(2, 2, 1), (1, 3, 2), (3, 2, 2)])
def test_a_bundle_layer_is_a_dense_exponential_between_turns(
    bundles: int, stalk: int, share: int
) -> None:
    graph, wide = barbell(), bundles * stalk * share
    Q, x = turns(7, bundles, stalk), torch.randn(7, wide, dtype=DOUBLE)
    block = bundle(Q, wide)
    here = x.view(7, stalk, bundles, share).numpy()
    turned = np.empty((7, bundles, stalk, share))
    for v in range(7):
        for b in range(bundles):
            turned[v, b] = Q[v, b].numpy() @ here[v, :, b]
    z = torch.from_numpy(turned.reshape(7, wide))
    m = torch.from_numpy(expm(-0.7 * graph.laplacian("sym", dtype=DOUBLE).to_dense().numpy())) @ z
    first, last = block.maps[0], block.maps[3]
    hidden = torch.tanh(torch.cat([z, m], 1) @ first.weight.T + first.bias)
    moved = (hidden @ last.weight.T + last.bias).view(7, bundles, stalk, share)
    back = torch.einsum("vbij,vbis->vjbs", Q, moved).reshape(7, wide)
    torch.testing.assert_close(block(x, graph), x + back, rtol=0, atol=1e-10)


@pytest.mark.parametrize("separate", [False, True])
def test_turning_the_stalks_turns_the_output(separate: bool) -> None:
    graph, Q, R = barbell(), turns(7), turns(7)
    x = torch.randn(7, 4, dtype=DOUBLE)
    block, turned = bundle(Q, 4, separate=separate), bundle(Q @ R.mT, 4, separate=separate)
    turned.load_state_dict(block.state_dict())

    def turn(x: Tensor) -> Tensor:
        return torch.einsum("vbij,vjb->vib", R, x.view(7, 2, 2)).reshape(7, 4)

    torch.testing.assert_close(turned(turn(x), graph), turn(block(x, graph)), rtol=0, atol=1e-11)


def test_frames_of_the_identity_are_a_heat_layer() -> None:
    one = torch.eye(2, dtype=DOUBLE).expand(7, 1, 2, 2)
    framed_, plain = bundle(one, 6), Block(6, heat(6), separate=True, act=nn.Tanh(), norm=False)
    plain.double().load_state_dict(framed_.state_dict())
    x = torch.randn(7, 6, dtype=DOUBLE)
    torch.testing.assert_close(framed_(x, barbell()), plain(x, barbell()), rtol=0, atol=1e-13)


def test_inside_its_frames_bundle_diffusion_is_heat() -> None:
    field = BundleDiffusion(4, 2, bundles=2, norm="rw", rate=0.3).double()
    x = torch.randn(7, 2, 4, dtype=DOUBLE)
    with torch.no_grad():
        Q = field.frames(x.flatten(1))
        inner = solve(field.inside(), framed(Q, x.flatten(1)), 2.0, barbell(), rtol=1e-11).final
        found = solve(field, x, 2.0, barbell(), rtol=1e-11).final
    torch.testing.assert_close(unframed(Q, inner), found.flatten(1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("hops", [0, 1, 3])
def test_frames_see_as_many_hops_as_they_are_told(hops: int) -> None:
    graph, frames = catalogue.path(8), Frames(4, 2, hops=hops).double()
    x = torch.randn(8, 4, dtype=DOUBLE, requires_grad=True)
    frames(x, graph)[0].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(1) > 0
    # Means alternate between the two colours of a path, sums of powers do not.
    assert seen.tolist() == [k <= hops for k in range(8)]


def test_a_field_may_have_frames_that_see_neighbours() -> None:
    check_field(BundleDiffusion(4, 2, hops=2), barbell())
    with pytest.raises(ValueError, match="with the graph"):
        Frames(4, 2, hops=2)(torch.ones(3, 4))


def test_frames_read_means_of_neighbours_however_many_there_are() -> None:
    frames = Frames(4, 2, hops=2).double()
    alike = frames(torch.ones(6, 4, dtype=DOUBLE) * 0.3, catalogue.star(6))
    torch.testing.assert_close(alike, alike[:1].expand_as(alike), rtol=0, atol=1e-12)


def test_a_stacked_bundle_has_its_frames_around_the_linear_maps() -> None:
    options = {"bundles": 2, "hops": 1, "norm": "rw"}
    recipe = Recipe("bundle", 3, 2, 2, options, end=0.4, act="tanh", rtol=1e-11, **KIND)
    (block,) = recipe.build().double().blocks
    graph, x = barbell(), torch.randn(7, 4, dtype=DOUBLE)
    z = nn.functional.layer_norm(x, (4,), block.norm.weight, block.norm.bias)
    Q = block.frames(z, graph)
    L = graph.laplacian("rw", dtype=DOUBLE).to_dense()
    # Two bundles with one channel each: columns of z are (stalk, bundle).
    turned = torch.einsum("vbij,vjb->vbi", Q, z.view(7, 2, 2)).reshape(7, 4)
    moved = block.maps[3](torch.tanh(block.maps[0](torch.linalg.matrix_exp(-0.4 * L) @ turned)))
    back = torch.einsum("vbij,vbi->vjb", Q, moved.view(7, 2, 2)).reshape(7, 4)
    torch.testing.assert_close(block(x, graph), x + back, rtol=0, atol=1e-9)


def test_heads_of_attention_stand_side_by_side() -> None:
    stack = Recipe("gat", 3, 2, 6, {"heads": 3}, **KIND).build()
    conv = stack.blocks[0].mixing.conv
    assert (conv.heads, conv.out_channels, conv.concat) == (3, 2, True)


@pytest.mark.parametrize("model", ["gcn", "sage"])
def test_convolutions_in_blocks_are_those_of_dense_matrices(model: str) -> None:
    stack = Recipe(model, 3, 2, 4, layers=2, act="gelu", encoder_act=True, **KIND).build().double()
    graph, x = barbell(), torch.randn(7, 3, dtype=DOUBLE)
    A = graph.adjacency(dtype=DOUBLE).to_dense()
    loops = A + torch.eye(7, dtype=DOUBLE)
    root = loops.sum(1).rsqrt()
    h = stack.encoder(x)
    for block in stack.blocks:
        z = nn.functional.layer_norm(h, (4,), block.norm.weight, block.norm.bias)
        conv = block.mixing.conv
        if model == "gcn":
            m = root[:, None] * loops * root @ z @ conv.lin.weight.T + conv.bias
        else:
            mean = A / A.sum(1, keepdim=True) @ z
            m = mean @ conv.lin_l.weight.T + conv.lin_l.bias + z @ conv.lin_r.weight.T
        first, last = block.maps[0], block.maps[3]
        hidden = nn.functional.gelu(m @ first.weight.T + first.bias)
        h = h + hidden @ last.weight.T + last.bias
    norm, linear = stack.decoder
    h = nn.functional.layer_norm(h, (4,), norm.weight, norm.bias)
    torch.testing.assert_close(stack(x, graph), h @ linear.weight.T + linear.bias)


@pytest.mark.parametrize("model", MODELS)
def test_everything_that_is_a_model_can_be_stacked(model: str) -> None:
    steps = FIELDS[model].steps if model in FIELDS else None
    options = {"heads": 2} if model == "gat" else {}
    recipe = Recipe(model, 3, 2, 4, options, 2, True, True, end=0.2, steps=steps, dropout=0.0)
    graph, order = barbell(), torch.randperm(7)
    stack = recipe.build().double().eval()
    x = torch.randn(7, 3, dtype=DOUBLE)
    assert isinstance(stack, Stack)
    out = stack(x, graph)
    assert out.shape == (7, 2)
    if model in TRAINABLE:
        renamed = Graph(torch.argsort(order)[graph.edge_index], 7)
        torch.testing.assert_close(stack(x[order], renamed), out[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["mlp", "sage", "bundle", "sheaf", "grand", "wave"])
def test_without_its_linear_maps_a_block_is_the_identity(model: str) -> None:
    stack = Recipe(model, 3, 2, 4, layers=3, **KIND).build().double()
    for block in stack.blocks:
        nn.init.zeros_(block.maps[3].weight)
        nn.init.zeros_(block.maps[3].bias)
    states = stack.states(torch.randn(7, 3, dtype=DOUBLE), barbell())
    assert len(states) == 4
    assert all(torch.equal(state, states[0]) for state in states)


@pytest.mark.parametrize(
    ("model", "options"),
    [("bundle", {"bundles": 2, "hops": 1}), ("sheaf", {"stalk": 2}), ("grand", {}), ("gat", {})],
)
def test_gradients_are_those_of_finite_differences(model: str, options: dict[str, int]) -> None:
    heads = {"heads": 2} if model == "gat" else {}
    learned = {} if model == "gat" else {"learned_end": True, "rtol": 1e-11}
    recipe = Recipe(
        model, 3, 2, 4, options | heads, layers=2, separate=True, act="tanh", **learned, **KIND
    )
    stack = recipe.build().double()
    x, wanted = torch.randn(7, 3, dtype=DOUBLE), torch.randn(7, 2, dtype=DOUBLE)

    def loss() -> Tensor:
        return (stack(x, barbell()) - wanted).square().sum()

    loss().backward()
    names = dict(stack.named_parameters())
    assert sum(name.endswith("log_end") for name in names) == (0 if model == "gat" else 2)
    for name, one in names.items():
        assert one.grad is not None, name
        flat, index, h = one.data.view(-1), int(one.grad.abs().view(-1).argmax()), 1e-5
        before, values = float(flat[index]), []
        with torch.no_grad():
            for value in (before + h, before - h):
                flat[index] = value
                values.append(float(loss()))
        flat[index] = before
        slope = (values[0] - values[1]) / (2 * h)
        assert float(one.grad.view(-1)[index]) == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def test_the_trajectory_holds_the_states_and_their_energy() -> None:
    stack = Recipe("bundle", 3, 2, 4, layers=3, stacked=True, dropout=0.5).build().double().train()
    stack.blocks[1].eval()
    graph, x = barbell(), torch.randn(7, 3, dtype=DOUBLE)
    flow = stack.trajectory(x, graph, norm="sym")
    assert stack.training
    assert stack.blocks[0].maps.training
    assert not stack.blocks[1].training
    assert not flow.final.requires_grad
    stack.eval()
    torch.testing.assert_close(stack.read(flow.final), stack(x, graph))
    torch.testing.assert_close(flow.x[0], stack.encoder(x))
    L = graph.laplacian("sym", dtype=DOUBLE).to_dense()
    assert flow.energy.t.tolist() == [0.0, 1.0, 2.0, 3.0]
    for state, energy, norm, quotient in zip(
        flow.x, flow.energy.y, flow["norm"].y, flow["rayleigh"].y, strict=True
    ):
        expected = float((state * (L @ state)).sum())
        assert float(energy) == pytest.approx(expected, rel=1e-9)
        assert float(norm) == pytest.approx(float(state.norm()), rel=1e-12)
        assert float(quotient) == pytest.approx(expected / float(state.norm()) ** 2, rel=1e-9)


def test_dropout_stands_between_the_flows() -> None:
    stack = Recipe("heat", 3, 2, 4, layers=2, stacked=True, input_dropout=0.0).build().double()
    x = torch.randn(7, 3, dtype=DOUBLE)
    assert not torch.equal(stack(x, barbell()), stack(x, barbell()))
    stack.eval()
    assert torch.equal(stack(x, barbell()), stack(x, barbell()))


RECIPES = [
    Recipe("bundle", 3, 2, 4, {"bundles": 2, "hops": 2}, 2, True, True, learned_end=True),
    Recipe("sheaf", 3, 2, 4, {"stalk": 2}, 2, True, act="gelu", rtol=1e-3),
    Recipe("gat", 3, 2, 4, {"heads": 2}, 2, True, encoder_act=True),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.model)
def test_a_stack_comes_back_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    path, one = tmp_path / "stack.safetensors", recipe.build().eval()
    save(path, one, recipe)
    torch.manual_seed(1)
    again, x = load(path), torch.randn(7, 3)
    assert isinstance(again, Stack)
    assert Recipe(**recipe.settings()) == recipe
    assert torch.equal(again(x, barbell()), one(x, barbell()))


def test_settings_of_other_models_stay_as_they_were() -> None:
    assert isinstance(Recipe("gcn", 3, 2, 4).build(), Convolutions)
    assert isinstance(Recipe("bundle", 3, 2, 4).build(), NodeModel)


def test_what_cannot_be_stacked_is_refused() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        Stack(nn.Identity(), [], nn.Identity())
    with pytest.raises(ValueError, match="stacked=True too"):
        Recipe("heat", 3, 2, separate=True)
    with pytest.raises(ValueError, match="3 heads do not share"):
        Recipe("gat", 3, 2, 4, {"heads": 3}, stacked=True).build()
    with pytest.raises(ValueError, match="dropout"):
        Block(4, NodeModel(nn.Identity(), Noisy(), nn.Identity()))


class Noisy(Heat):
    """A field that draws."""

    channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.noise_of = nn.Dropout(0.5)
