"""Dominance: thresholds in closed form, and predictions against simulated flows."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis import MAD, BandEnergy, ConsensusDistance, dominance, extremes, spectrum, tendency
from analysis import extremes as ends
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAFF, Heat, TransformerFlow, allen_cahn
from neuralpde.fields.registry import FIELDS
from neuralpde.operators import Kronecker
from tests.strategies import quietly

F64 = torch.float64
GOLDEN = (1 + 5**0.5) / 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def limit(A: Tensor, W: Tensor, x0: Tensor, t: float, step: float | None = None) -> Tensor:
    """x / |x| of x' = A x W, or of the residual steps, from dense matrices."""
    K = torch.kron(A.contiguous(), W.T.contiguous())
    one = torch.eye(len(K), dtype=F64)
    if step is None:
        # In pieces, so that nothing overflows.
        flow, count = torch.linalg.matrix_exp(K), round(t)
    else:
        flow, count = one + step * K, round(t / step)
    x = x0.flatten()
    for _ in range(count):
        x = flow @ x
        x = x / x.norm()
    return x.view(x0.shape)


def quotient(graph: Graph, x: Tensor) -> float:
    return float((x * (graph.laplacian("sym", dtype=F64) @ x)).sum() / x.square().sum())


@pytest.mark.parametrize(
    ("graph", "ratio"), [(catalogue.ring(5), 2 / GOLDEN), (catalogue.path(6), 1.0)]
)
def test_high_frequencies_win_above_the_threshold_of_the_spectrum(
    graph: Graph, ratio: float
) -> None:
    for w, outcome in ((-0.97 * ratio, "low"), (-1.03 * ratio, "high"), (0.5, "low")):
        W = torch.tensor([1.0, w], dtype=F64)
        found = dominance(graph, W)
        assert found.outcome == outcome
        assert found.threshold == pytest.approx(ratio, rel=1e-12)
        A = graph.adjacency("sym", dtype=F64).to_dense()
        x = limit(A, W.diag(), normal(graph.num_nodes, 2), 400.0)
        rho = float(spectrum(graph, "sym").eigenvalues.max())
        expected = {"low": 0.0, "high": rho}[outcome]
        assert quotient(graph, x) == pytest.approx(expected, abs=1e-5)
        assert found.margin == pytest.approx(abs(found.low - found.high), rel=1e-9) or (
            found.outcome == "low"
        )
    assert "high: rates" in str(dominance(graph, torch.tensor([1.0, -2.0])))


def test_the_reference_numbers_of_the_ring_of_five() -> None:
    found = dominance(catalogue.ring(5), torch.tensor([1.0, -1.2], dtype=F64))
    assert found.low == pytest.approx(1.0)
    assert found.high == pytest.approx(1.2 * GOLDEN / 2)
    assert found.threshold == pytest.approx(1.2360679775)


@pytest.mark.parametrize("graph", [catalogue.ring(5), catalogue.path(6), catalogue.ring(9)])
def test_at_the_threshold_nothing_is_decided(graph: Graph) -> None:
    rho = float(spectrum(graph, "sym").eigenvalues.max())
    for dtype in (torch.float32, F64):
        found = dominance(graph, torch.tensor([1.0, -1 / (rho - 1)], dtype=dtype))
        assert found.outcome == "undecided"
        assert found.rank is None
        assert found.angles is None
    # Double precision tells what single precision cannot.
    near = -(1 + 1e-9) / (rho - 1)
    assert dominance(graph, torch.tensor([1.0, near], dtype=torch.float32)).outcome == "undecided"
    assert dominance(graph, torch.tensor([1.0, near], dtype=F64)).outcome == "high"
    assert dominance(graph, torch.zeros(2)).outcome == "undecided"


def test_negative_weights_alone_sharpen_and_positive_ones_alone_smooth() -> None:
    graph = catalogue.complete(5)  # the least eigenvalue of A is -1/4
    assert dominance(graph, torch.tensor([-1e-3, -2.0])).outcome == "high"
    assert dominance(graph, torch.tensor([1e-3, 2.0])).outcome == "low"
    assert dominance(graph, torch.tensor([1.0, -3.9])).outcome == "low"
    assert dominance(graph, torch.tensor([1.0, -4.1])).outcome == "high"


@pytest.mark.parametrize("seed", range(6))
def test_full_weights_and_weighted_graphs_agree_with_simulation(seed: int) -> None:
    graph = catalogue.grid(3, 3)
    weight = 0.2 + torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(seed))
    source, target = graph.edge_index
    once = source < target
    edges = torch.cat([graph.edge_index[:, once], graph.edge_index[:, once].flip(0)], 1)
    graph = Graph(edges, 9, weight.double().repeat(2))
    half = normal(3, 3, seed=seed)
    W = half + half.T
    found = dominance(graph, W)
    A = graph.adjacency("sym", dtype=F64).to_dense()
    x = limit(A, W, normal(9, 3, seed=seed + 50), 40 / found.margin)
    expected = {"low": 0.0, "high": float(spectrum(graph, "sym").eigenvalues.max())}
    assert quotient(graph, x) == pytest.approx(expected[found.outcome], abs=1e-6)


def test_long_residual_steps_turn_the_outcome() -> None:
    """(1 + tau a w) with tau = 4: |1 - 4 * 0.8| = 2.2 beats nothing that e^(a w t) lets grow."""
    graph = catalogue.ring(5)
    W = torch.tensor([0.1, -0.12], dtype=F64)
    A, x0 = graph.adjacency("sym", dtype=F64).to_dense(), normal(5, 2)
    for step, outcome in ((None, "low"), (1.0, "low"), (20.0, "low"), (1e-3, "low")):
        assert dominance(graph, W, step).outcome == outcome
    # -w = 1: continuous flows sharpen; a step of 3 multiplies the smooth mode by |1 - 3| = 2 and
    # the sharpest by 1 + 3 * 0.809 = 3.43; where A is reversed the smooth one wins by overshoot.
    W = torch.tensor([-1.0], dtype=F64)
    assert dominance(graph, W).outcome == dominance(graph, W, 3.0).outcome == "high"
    assert dominance(graph, W, 20.0).outcome == "low"  # 19 against 17.2
    for step in (3.0, 20.0):
        x = limit(A, W.diag(), x0[:, :1], 400 * step, step)
        low = dominance(graph, W, step).outcome == "low"
        expected = 0.0 if low else float(spectrum(graph, "sym").eigenvalues.max())
        assert quotient(graph, x) == pytest.approx(expected, abs=1e-6)
    found = dominance(graph, W, 20.0)
    assert found.low == pytest.approx(math.log(19.0) / 20)
    with pytest.raises(ValueError, match="step is 0; give a positive number"):
        dominance(graph, W, 0)


def test_short_steps_are_the_continuous_flow() -> None:
    graph, W = catalogue.grid(3, 4), normal(3, 3)
    exact, stepped = dominance(graph, W), dominance(graph, W, 1e-6)
    assert exact.outcome == stepped.outcome
    assert stepped.low == pytest.approx(exact.low, abs=1e-4)
    assert stepped.high == pytest.approx(exact.high, abs=1e-4)


def test_graff_tends_to_where_its_weights_say() -> None:
    graph = catalogue.ring(5)
    for w, outcome in ((-0.8, "low"), (-1.7, "high")):
        field = GRAFF(2, "diag", external=False).double()
        weights = torch.tensor([1.0, w], dtype=F64)
        field.weights.offset.data.copy_(weights)
        traj = solve(field, normal(5, 2), [0.0, 5.0, 10.0], graph, rtol=1e-3)
        assert dominance(graph, weights).outcome == outcome == tendency(traj).outcome


def attention(graph: Graph, seed: int, channels: int = 3) -> tuple[TransformerFlow, Tensor]:
    torch.manual_seed(seed)
    field = TransformerFlow(channels, attention_dim=channels, variant="linear").double()
    return field, normal(graph.num_nodes, channels, seed=seed)


@pytest.mark.parametrize("seed", range(12))
def test_transformers_converge_as_the_joint_spectrum_says(seed: int) -> None:
    graph = catalogue.complete(6)
    field, x0 = attention(graph, seed)
    torch.nn.init.normal_(field.value.weight)
    torch.nn.init.normal_(field.out.weight)
    bound = field.bind(graph, x0)
    operator = bound.operator
    found = dominance(operator.nodes, operator.channels)
    A, H = operator.nodes.to_dense().detach(), operator.channels.detach()
    x = limit(A, H, x0, max(60 / found.margin, 10.0))
    mad = float(MAD()(x, graph))
    consensus = float(ConsensusDistance(relative=True)(x, graph))
    assert found.angles == (mad < 1e-6) == (consensus < 1e-4)
    singular = torch.linalg.svdvals(x)
    assert int((singular > 1e-6 * singular[0]).sum()) == found.rank
    # Absolute distances: everything but the constant modes must decay.
    flow = torch.linalg.matrix_exp(30 * torch.kron(A, H.T.contiguous()))
    end = (flow @ x0.flatten()).view(6, 3)
    gone = float(ConsensusDistance()(end, graph)) < 1e-3 * float(ConsensusDistance()(x0, graph))
    rest = np.outer(*(ends(part).values.numpy() for part in (operator.nodes, H))).real
    if abs(np.sort(rest.max(1))[:-1].max()) > 0.3:
        assert found.inputs == gone


def test_euler_steps_of_frozen_attention_are_the_layers_that_were_judged() -> None:
    graph = catalogue.complete(5)
    field, x0 = attention(graph, 3)
    field.value.weight.data.copy_(torch.eye(3))
    for sign in (1.0, -1.0):
        field.out.weight.data.copy_(sign * torch.tensor([0.5, 0.3, 0.1]).diag())
        operator = field.bind(graph, x0).operator
        found = dominance(operator.nodes, operator.channels, 0.5)
        traj = solve(field, x0, 20.0, graph, solver="euler", steps=40, grad="none")
        if sign > 0:  # else the fastest mode grows at 0.05 only, and others are still there
            rate = math.log(float(traj["norm"].y[-1] / traj["norm"].y[-2])) / 0.5
            assert rate == pytest.approx(found.low, rel=1e-2)
        assert isinstance(traj.final, Tensor)
        assert found.angles == (float(MAD()(traj.final, graph)) < 1e-5) == (sign > 0)


def test_nonlinear_attention_ends_where_its_last_attention_says() -> None:
    """The registered example: attention follows the state, and tends to a constant matrix."""
    graph = catalogue.complete(6)
    torch.manual_seed(1)
    field = FIELDS["transformer"].make(3).double()
    assert isinstance(field, TransformerFlow)
    x0 = normal(6, 3)
    field.value.weight.data.mul_(0.5)
    field.out.weight.data.copy_(-field.value.weight.data.T)  # H is negative: states shrink
    traj = solve(field, x0, [0.0, 20.0], graph, grad="none")
    frozen = TransformerFlow(3, variant="linear").double()
    frozen.load_state_dict(field.state_dict())
    operator = frozen.bind(graph, traj.final).operator
    found = dominance(operator.nodes, operator.channels)
    mad, consensus = MAD(), ConsensusDistance()
    before, after = (float(consensus(x, graph)) for x in traj.x)
    assert found.angles == (float(mad(traj.final, graph)) < 1e-4)
    assert found.inputs in (None, after < before)


def test_inputs_converge_where_all_but_the_constants_decay() -> None:
    A = torch.tensor([[0.25, 0.75], [0.75, 0.25]], dtype=F64)  # 1 and -1/2
    found = dominance(A, torch.tensor([1.0], dtype=F64))
    assert (found.outcome, found.inputs, found.angles, found.rank) == ("low", True, True, 1)
    found = dominance(A, torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64))
    assert found.outcome == "undecided"  # all rates are 0: every mode turns
    assert found.inputs is None
    found = dominance(A, torch.tensor([-1.0], dtype=F64))
    assert (found.outcome, found.inputs, found.angles, found.rank) == ("high", False, False, 1)


def test_the_rank_of_the_limit_counts_pairs_that_share_nothing() -> None:
    # Two equal eigenvalues of W with one of A: u (c1 v1 + c2 v2)^T has rank 1.
    A = torch.tensor([1.0, -0.2], dtype=F64)
    assert dominance(A, torch.tensor([2.0, 2.0], dtype=F64)).rank == 1
    # Two components, each with its own constant mode: rank 2.
    two = torch.tensor([1.0, 1.0, -0.2], dtype=F64)
    assert dominance(two, torch.tensor([2.0, 2.0], dtype=F64)).rank == 2
    # Equal but for rounding.
    near = 1 - torch.tensor([0.0, 1.0], dtype=F64) * 2.0**-53
    assert dominance(torch.cat([near, two[2:]]), 2 * near).rank == 2
    assert dominance(torch.ones(3), torch.tensor([1.0, 2.0])).outcome == "undecided"
    # Conjugate pairs in both: a complex rotation in nodes and channels, rank 2.
    turn = torch.tensor([[1.0, -2.0], [2.0, 1.0]], dtype=F64)
    found = dominance(torch.block_diag(turn, torch.tensor([[3.0]], dtype=F64)), turn)
    x = limit(torch.block_diag(turn, torch.tensor([[3.0]], dtype=F64)), turn, normal(3, 2), 30.0)
    assert found.rank == int((torch.linalg.svdvals(x) > 1e-6).sum()) == 2
    assert found.outcome == "high"
    assert found.high == pytest.approx(5.0)


def test_ends_of_large_spectra_are_those_of_small_ones() -> None:
    graph = catalogue.torus(40, 30)
    for norm in ("comb", "sym"):
        known = catalogue.eigenvalues("torus", 40, 30, norm=norm)
        found = extremes(graph.laplacian(norm, dtype=F64))
        assert not found.complete
        values = found.values.real.sort().values
        assert float(values[-1]) == pytest.approx(float(known[-1]), rel=1e-8)
        assert float(values[0]) == pytest.approx(0.0, abs=1e-8)
        assert float(values[1]) == pytest.approx(float(known[1]), rel=1e-6)
    walk = extremes(graph.adjacency("row", dtype=F64))
    values = walk.values.real.sort().values
    assert float(values[-1]) == pytest.approx(1.0)
    assert float(values[0]) == pytest.approx(-1.0)
    assert dominance(graph, torch.tensor([1.0, -0.9])).outcome == "low"
    assert dominance(graph, torch.tensor([1.0, -1.1])).outcome == "high"


def test_ends_of_directed_spectra_are_found_by_arnoldi(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = torch.randint(0, 150, (2, 900), generator=torch.Generator().manual_seed(0))
    graph = Graph(edges, 150)
    A = graph.adjacency("row", dtype=F64)
    assert not A.self_adjoint
    whole = extremes(A)
    assert whole.complete
    known = torch.linalg.eigvals(A.to_dense())
    monkeypatch.setattr("analysis.ends.SMALL", 20)
    found = extremes(A)
    assert not found.complete
    for end in (torch.max, torch.min):
        torch.testing.assert_close(end(found.values.real), end(known.real))
    assert float(found.values.abs().min()) > 0.5 * float(known.abs().median())
    gaps = (found.values[:, None] - found.values).abs() + torch.eye(len(found.values))
    assert gaps.min() > 1e-8
    # Rotations by 1, 7 and -2 steps of 400: a crowd near 1.
    nodes = torch.arange(400)
    target = torch.cat([(nodes + k) % 400 for k in (1, 7, -2)])
    ring = quietly(torch.stack([nodes.repeat(3), target]), 400)
    monkeypatch.setattr("analysis.ends.RESTARTS", 2)
    with pytest.raises(ValueError, match="too crowded for 2 restarts"):
        extremes(ring.adjacency("row", dtype=F64))


def test_a_crowded_end_is_enclosed(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = catalogue.path(1500)
    assert float(BandEnergy(4).edges(graph)[0, -1]) == pytest.approx(4.0, abs=1e-5)
    monkeypatch.setattr("analysis.ends.RESTARTS", 1)
    other = catalogue.path(1600)
    assert float(BandEnergy(4).edges(other)[0, -1]) == pytest.approx(4.0, rel=1e-9)


def test_what_has_no_single_spectrum_is_refused() -> None:
    graph = catalogue.path(4)
    batch = Graph.union([graph, graph])
    for operator in (batch.adjacency("sym"), Kronecker(graph.adjacency("sym"), torch.ones(2, 2))):
        with pytest.raises(ValueError, match="those of one graph's operator"):
            extremes(operator)


def test_trajectories_of_nonlinear_fields_show_their_tendency() -> None:
    graph, x0 = catalogue.ring(9), normal(9, 2)
    t = torch.linspace(0, 60, 13, dtype=F64)
    assert tendency(solve(Heat("sym"), x0, t, graph)).outcome == "low"
    mixed = tendency(solve(allen_cahn(0.05, 1.0, "sym"), x0, t, graph))
    assert mixed.outcome == "undecided"
    assert 0 <= mixed.low < 0.99
    shares = spectrum(graph, "sym").power(solve(Heat("sym"), x0, t[:3], graph).final)
    short = tendency(solve(Heat("sym"), x0, t[:3], graph))
    assert short.low <= float(shares[0] / shares.sum()) + 1e-12
    repelling = GRAFF(2, "neg_prod", external=False).double()
    # Every eigenvalue of W is 0 or less: what it moves at all tends to the sharpest modes.
    torch.nn.init.eye_(next(repelling.weights.parameters()))
    sharp = tendency(solve(repelling, x0, t * 4, graph))
    assert sharp.outcome == "high"
    assert sharp.high > 0.99


def test_a_tendency_is_that_of_one_graph() -> None:
    batch = Graph.union([catalogue.path(3), catalogue.path(4)])
    with pytest.raises(ValueError, match="a tendency is that of one graph"):
        tendency(solve(Heat(), normal(7, 1), 1.0, batch))
    with pytest.raises(ValueError, match="a tendency is that of one graph"):
        tendency(solve(lambda t, x: -x, normal(7, 1), 1.0))
