"""Models of nodes: encoder, field and decoder as one module."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, SolveFailed, catalogue, data, fields
from neuralpde.fields import Field, GraphCON, Heat, Layers, Schroedinger, SheafDiffusion
from neuralpde.models import EnergyPenalty, NodeModel, Recipe
from neuralpde.models.recipe import TRAINABLE
from neuralpde.models.states import flattened, opened, readout, width
from neuralpde.tracking import EnergyTrack

DOUBLE = torch.float64
NODES = 10
STEPS = {"g2": 4}


def ring() -> Graph:
    return catalogue.ring(NODES)


def features(channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(NODES, channels, generator=torch.Generator().manual_seed(seed)).double()


def model(field: Field, channels: int = 4, **settings: object) -> NodeModel:
    wide, seen = width(field, channels), readout(field, channels)
    settings.setdefault("rtol", 1e-9)
    settings.setdefault("atol", 1e-11)
    encoder, decoder = nn.Linear(3, wide), nn.Linear(seen, 2)
    return NodeModel(encoder, field, decoder, channels=channels, **settings).double()


def test_heat_between_linear_maps_is_the_matrix_exponential() -> None:
    one, x = model(Heat("sym", rate=0.5), end=1.3), features()
    L = ring().laplacian("sym").to_dense().double()
    hidden = x @ one.encoder.weight.T + one.encoder.bias
    last = torch.linalg.matrix_exp(-0.5 * 1.3 * L) @ hidden
    torch.testing.assert_close(one(x, ring()), one.decoder(last), rtol=1e-8, atol=1e-9)


def test_layers_follow_one_another_for_equal_times() -> None:
    one = model(Layers([Heat("sym", rate=1.0), Heat("sym", rate=3.0)]), end=0.6)
    same = model(Heat("sym", rate=2.0), end=0.6)
    same.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(features(), ring()), same(features(), ring()))


def slope_by_differences(loss: Callable[[], Tensor], one: Tensor, index: int) -> float:
    flat, h = one.data.view(-1), 1e-5
    before = float(flat[index])
    values = []
    for value in (before + h, before - h):
        flat[index] = value
        values.append(float(loss()))
    flat[index] = before
    return (values[0] - values[1]) / (2 * h)


@pytest.mark.parametrize("name", ["grand", "graff", "sheaf", "bundle", "graphcon", "g2"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    steps = STEPS.get(name)
    recipe = Recipe(name, 3, 2, 4, end=0.8, learned_end=steps is None, steps=steps, dropout=0.0)
    exact = {} if steps else {"rtol": 1e-11, "atol": 1e-12}
    one = Recipe(**{**recipe.settings(), "input_dropout": 0.0, "act": "tanh", **exact}).build()
    one.double()
    x, wanted = features(), features(2, seed=1)

    def loss() -> Tensor:
        return (one(x, ring()) - wanted).square().sum()

    loss().backward()
    for label, parameter in one.named_parameters():
        assert parameter.grad is not None, label
        index = int(parameter.grad.abs().view(-1).argmax())
        with torch.no_grad():
            found = slope_by_differences(loss, parameter, index)
        assert float(parameter.grad.view(-1)[index]) == pytest.approx(found, rel=1e-4, abs=1e-7), (
            label
        )


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_the_end_time_is_learned_along_the_true_slope(solver: str) -> None:
    # x(T) = e^(-2T) (1, -1) on a pair, so d|x(T)|^2 / dT = -8 e^(-4T).
    pair = catalogue.path(2)
    one = NodeModel(
        nn.Identity(),
        Heat(),
        nn.Identity(),
        channels=1,
        end=0.7,
        learned_end=True,
        solver=solver,
        rtol=1e-10,
        atol=1e-12,
    )
    x = torch.tensor([[1.0], [-1.0]], dtype=DOUBLE)
    one(x, pair).square().sum().backward()
    assert one.log_end is not None
    expected = -8 * torch.exp(torch.tensor(-2.8, dtype=DOUBLE)) * 0.7
    torch.testing.assert_close(one.log_end.grad, expected, rtol=1e-7, atol=0.0)
    assert float(one.end.detach()) == pytest.approx(0.7, rel=1e-15)


def test_fixed_steps_give_the_slope_at_the_end() -> None:
    pair, x = catalogue.path(2), torch.tensor([[1.0], [-1.0]], dtype=DOUBLE)
    one = NodeModel(
        nn.Identity(),
        Heat(),
        nn.Identity(),
        channels=1,
        end=0.5,
        learned_end=True,
        solver="euler",
        steps=4,
    )
    out = one(x, pair)
    factor = (1 - 2 * 0.125) ** 4
    torch.testing.assert_close(out, factor * x)
    out[0, 0].backward()
    assert one.log_end is not None
    torch.testing.assert_close(one.log_end.grad, torch.tensor(-2 * factor * 0.5, dtype=DOUBLE))


@pytest.mark.parametrize("name", list(TRAINABLE))
def test_renaming_the_nodes_renames_the_output(name: str) -> None:
    graph, order = data.karate(), torch.randperm(34)
    renamed = Graph(torch.argsort(order)[graph.edge_index], 34)
    x = torch.randn(34, 3, dtype=DOUBLE)
    recipe = Recipe(name, 3, 2, 4, steps=4, solver="auto" if name == "graphcon" else "rk4")
    one = recipe.build().double().eval()
    torch.testing.assert_close(one(x[order], renamed), one(x, graph)[order])


def test_dropout_is_quiet_in_eval_mode_and_loud_in_training() -> None:
    one = Recipe("grand", 3, 2, 4, end=1.0, input_dropout=0.5).build().double()
    one.eval()
    assert torch.equal(one(features(), ring()), one(features(), ring()))
    one.train()
    assert not torch.equal(one(features(), ring()), one(features(), ring()))


@pytest.mark.parametrize("noise", [nn.Dropout(0.1), nn.BatchNorm1d(4)])
def test_noise_inside_the_field_is_refused(noise: nn.Module) -> None:
    class Noisy(Field):
        channels = 4

        def __init__(self) -> None:
            super().__init__()
            self.noisy = noise

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -self.noisy(x)

    for field in (Noisy(), Layers([Noisy()]), Noisy().eval()):
        with pytest.raises(ValueError, match="put it into the encoder"):
            model(field)


def test_dropout_that_drops_nothing_is_allowed() -> None:
    class Still(Field):
        channels = 4

        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Dropout(0.0)

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -self.idle(x)

    one = model(Still(), end=1.0)
    expected = one.decoder(one.encoder(features()) * torch.exp(torch.tensor(-1.0, dtype=DOUBLE)))
    torch.testing.assert_close(one(features(), ring()), expected)


def test_watching_changes_nothing() -> None:
    one = Recipe("grand", 3, 2, 4, batch_norm=True, learned_end=True).build().double().train()
    one.decoder[1].eval()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    flow = one.trajectory(features(), ring(), watch=())
    assert not flow.final.requires_grad
    assert all(torch.equal(before[name], value) for name, value in one.state_dict().items())
    assert one.training
    assert one.encoder.training
    assert not one.decoder[1].training


def test_outputs_alone_measure_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recipe("heat", 3, 2, channels=4, solver="rk4", steps=3).build().double()
    graph, x = ring(), features()
    wanted = model.eval()(x, graph)
    monkeypatch.setattr(EnergyTrack, "__call__", None)
    assert torch.equal(model(x, graph), wanted)
    with pytest.raises(TypeError):
        model.trajectory(x, graph)


def test_the_trajectory_ends_where_the_decoder_reads() -> None:
    one = Recipe("graphcon", 3, 2, 4, end=1.0, steps=8, solver="leapfrog").build().double().eval()
    flow = one.trajectory(features(), ring())
    torch.testing.assert_close(one.read(flow.final), one(features(), ring()))
    assert flow.energy is not None
    assert float(flow.energy.t[-1]) == 1.0


def test_beyond_the_end_steps_keep_their_size() -> None:
    one = Recipe("heat", 3, 2, 4, end=1.0, steps=5).build().double()
    assert one.trajectory(features(), ring(), 3.0).stats.accepted == 15
    assert one.trajectory(features(), ring(), torch.tensor([0.0, 1.0, 2.0])).stats.accepted == 10


def test_energy_falls_while_heat_flows_beyond_the_end() -> None:
    one = Recipe("heat", 3, 2, 4, end=1.0).build().double()
    y = one.trajectory(features(), ring(), 5.0).energy.y
    assert bool((y[1:] < y[:-1]).all())


def test_stalks_velocities_and_phases_come_and_go() -> None:
    hidden = torch.arange(12.0).view(2, 6)
    assert opened(SheafDiffusion(2, 3), hidden)[0].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    x, v = opened(GraphCON(6), hidden)
    assert torch.equal(x, hidden)
    assert not v.any()
    assert torch.equal(opened(GraphCON(6), hidden, "position")[1], hidden)
    psi = opened(Schroedinger(), hidden)
    assert psi.is_complex()
    assert flattened(psi).shape == (2, readout(Schroedinger(), 6))
    assert torch.equal(flattened((hidden, v)), hidden)


def test_further_layers_of_an_encoder_follow_or_add() -> None:
    x = features()
    for residual in (False, True):
        recipe = Recipe("heat", 3, 2, 4, encoder_layers=3, encoder_residual=residual)
        encoder = recipe.build().double().eval().encoder
        first, *further = (one for one in encoder.modules() if isinstance(one, nn.Linear))
        wanted = first(x)
        for linear in further:
            wanted = linear(wanted.relu()) + residual * wanted
        assert len(further) == 2
        torch.testing.assert_close(encoder(x), wanted)
        drops = [one.p for one in encoder.modules() if isinstance(one, nn.Dropout)]
        assert drops == [0.5] * (3 + residual)


def test_recipes_of_earlier_ledgers_are_told_by_the_same_settings() -> None:
    assert "encoder_residual" not in Recipe("heat", 3, 2).settings()
    own = Recipe("heat", 3, 2, encoder_layers=2, encoder_residual=True)
    assert own.settings()["encoder_residual"] is True
    assert Recipe(**own.settings()) == own


def test_what_cannot_be_built_is_refused() -> None:
    identity = nn.Identity()
    with pytest.raises(ValueError, match="positive, finite"):
        NodeModel(identity, Heat(), identity, channels=1, end=0.0)
    with pytest.raises(ValueError, match="any number of channels"):
        NodeModel(identity, Heat(), identity)
    with pytest.raises(ValueError, match="has 4 channels"):
        NodeModel(identity, fields.GRAND(4), identity, channels=3)
    with pytest.raises(ValueError, match="velocity"):
        NodeModel(identity, Heat(), identity, channels=1, velocity="none")
    with pytest.raises(ValueError, match=r"\[nodes, 4\]"):
        NodeModel(nn.Linear(3, 5), fields.GRAND(4), identity)(torch.ones(NODES, 3), ring())
    with pytest.raises(ValueError, match="grand"):
        Recipe("gramd", 3, 2)
    with pytest.raises(ValueError, match="heads"):
        Recipe("grand", 3, 2, options={"head": 2}).build()
    with pytest.raises(ValueError, match="encoder_layers to 2 or more"):
        Recipe("heat", 3, 2, encoder_residual=True)
    with pytest.raises(ValueError, match="takes none"):
        Recipe("heat", 3, 2, options={"rate": 2.0})


def test_failures_of_the_solve_are_told() -> None:
    one = model(fields.fisher(), end=50.0)
    one.encoder.bias.data.fill_(-5.0)
    with pytest.raises(SolveFailed):
        one(features(), ring())


def test_the_penalty_is_the_rayleigh_quotient_of_the_dense_form() -> None:
    x = features()
    for norm in ("comb", "sym", "augmented"):
        L = ring().laplacian(norm).to_dense().double()
        energy = torch.trace(x.T @ L @ x)
        found = EnergyPenalty(0.5, norm=norm)(x, ring())
        torch.testing.assert_close(found, 0.5 * energy / x.square().sum())
        found = EnergyPenalty(2.0, 0.1, norm, "node")(x, ring())
        torch.testing.assert_close(found, 2.0 * (energy / NODES - 0.1).square())


def test_the_penalty_is_the_mean_over_graphs_and_has_gradients() -> None:
    pair = catalogue.path(2).edge_index
    both = Graph(torch.cat([pair, pair + 2], 1), 4, batch=torch.tensor([0, 0, 1, 1]))
    x = torch.tensor([[1.0], [-1.0], [3.0], [3.0]], dtype=DOUBLE)
    price = EnergyPenalty(1.0, norm="comb")
    assert price.energies(x, both).tolist() == pytest.approx([2.0, 0.0], abs=1e-15)
    assert float(price(x, both)) == pytest.approx(1.0)
    assert torch.autograd.gradcheck(lambda x: price(x, both), x.requires_grad_())
    assert float(price(torch.zeros(4, 1, dtype=DOUBLE), both)) == 0.0


def test_the_penalty_holds_near_consensus_in_single_precision() -> None:
    rough = features().float()
    rough = rough - rough.mean(0)
    price = EnergyPenalty(1.0, norm="comb", scale="node")
    found, wanted = price(rough + 1000.0, ring()), price(rough, ring())
    # What is stored of 1000 + x is off by 3e-5; without the projection the sum loses all digits.
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0.0)
