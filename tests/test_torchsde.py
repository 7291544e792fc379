"""torchsde's solvers: on our paths and grids, and stochastic fields inside torchsde itself."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchsde
from torch import Tensor, nn

from neuralpde import Graph, solve
from neuralpde.catalogue import path, ring
from neuralpde.fields import Field, Heat, Noise, Reaction
from solvers.brownian import Brownian
from solvers.failure import SolveFailed
from solvers.noise import NoiseTerm
from solvers.stochastic import drawn_seed
from solvers.torchsde_adapter import Method, names

GRAPH = ring(6)
METHODS = [name for name in names() if name != "srk"]
ITO, STRATONOVICH = ("euler", "milstein", "srk"), ("heun", "midpoint", "euler_heun", "log_ode")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state(channels: int = 3) -> Tensor:
    x = torch.linspace(0.5, 1.5, 6 * channels, dtype=torch.float64)
    return x.reshape(6, channels)


class Growth(Field):
    """dX = -L X dt + m X dt + s X dW, in either convention."""

    def __init__(self, convention: str = "ito", spread: float = 0.4) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.spread = nn.Parameter(torch.tensor(spread, dtype=torch.float64))
        self.convention = convention

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.operator = -graph.laplacian()

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.rate * torch.sin(x) * (1 + t)

    def inherited_noise(self) -> NoiseTerm:
        return NoiseTerm(lambda t, x: self.spread * x, additive=False, convention=self.convention)


def like_ours(name: str) -> tuple[Field, str]:
    """A field for a method of torchsde, and our method that solves it."""
    if Method(name).convention == "stratonovich":
        return Growth("stratonovich"), "stochastic_heun"
    return Growth(), "euler_maruyama"


@pytest.mark.parametrize("schedule", ["uniform", "cosine"])
@pytest.mark.parametrize("pair", [("euler", "euler_maruyama"), ("heun", "stochastic_heun")])
def test_the_same_seed_gives_the_same_numbers_as_ours(pair: tuple[str, str], schedule: str) -> None:
    theirs, ours = pair
    times = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
    field, _ = like_ours(theirs)
    found = [
        solve(
            field, state(), times, GRAPH, solver=solver, steps=20, schedule=schedule,
            generator=seeded(),
        )
        for solver in (f"torchsde:{theirs}", ours)
    ]  # fmt: skip
    torch.testing.assert_close(found[0].x, found[1].x, rtol=1e-12, atol=1e-12)
    assert found[0].stats.nfe == found[1].stats.nfe


def test_euler_maruyama_is_torchsdes_euler_on_the_same_increments() -> None:
    # torchsde's own loop, with a Brownian motion of its interface that reads our path.
    W, x0, n = Brownian(drawn_seed(seeded()), (6, 3)), state(), 32

    class Read(torchsde.BaseBrownian):
        shape, dtype, device, levy_area_approximation = (6, 3), x0.dtype, x0.device, "none"

        def __call__(self, ta: Tensor, tb: Tensor, **ignored: bool) -> Tensor:
            return W.increment(float(ta), float(tb))

        def __repr__(self) -> str:
            return "Read()"

    bound = Growth().bind(GRAPH, x0)
    ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    theirs = torchsde.sdeint(bound, x0, ts, bm=Read(), method="euler", dt=1 / n)
    ours = solve(
        Growth(), x0, ts, GRAPH, solver="euler_maruyama", steps=n, generator=seeded()
    )  # fmt: skip
    torch.testing.assert_close(ours.x, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_agrees_with_ours_on_the_same_path_as_steps_shrink(name: str) -> None:
    field, ours = like_ours(name)
    with torch.no_grad():
        fine = solve(
            field, state(), 1.0, GRAPH, solver=ours, steps=4096 if ours[0] == "e" else 1024,
            generator=seeded(3),
        ).final  # fmt: skip
        gaps = []
        for n in (16, 64, 256):
            traj = solve(
                field, state(), 1.0, GRAPH, solver=f"torchsde:{name}", steps=n, generator=seeded(3)
            )
            gaps.append(float((traj.final - fine).square().mean().sqrt()))
    assert gaps[2] < gaps[0] / 3
    assert gaps[2] < 0.02


def test_srk_has_the_law_of_the_exact_solution() -> None:
    # On its own path; the mean of log X_T of the geometric motion is (m - s^2/2) T.
    class Motion(Field):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return 0.7 * x

        def noise(self, t: Tensor, x: Tensor) -> Tensor:
            return 0.6 * x

    paths = 20_000
    x0 = torch.ones(1, paths, dtype=torch.float64)
    traj = solve(Motion(), x0, 1.0, path(1), solver="torchsde:srk", steps=8, generator=seeded(1))
    logs = traj.final.log()
    assert abs(float(logs.mean()) - (0.7 - 0.18)) < 4 * 0.6 / paths**0.5
    assert float(logs.std()) == pytest.approx(0.6, rel=4 / (2 * paths) ** 0.5)


@pytest.mark.parametrize("name", names())
def test_additive_noise_goes_through_every_method(name: str) -> None:
    # One step of noise alone is W itself; srk has a path of its own.
    x0 = torch.zeros(6, 2, dtype=torch.float64)
    for field in (Noise(0.5), Noise(0.5, convention="stratonovich")):
        traj = solve(field, x0, 1.0, solver=f"torchsde:{name}", steps=3, generator=seeded())
        if name != "srk":
            want = 0.5 * Brownian(drawn_seed(seeded()), (6, 2))(1.0)
            torch.testing.assert_close(traj.final, want, rtol=1e-12, atol=1e-12)
        assert 0.1 < float(traj.final.std()) < 1.0


@pytest.mark.parametrize("name", [n for n in names() if n != "reversible_heun"])
def test_noise_through_an_operator_goes_through_every_method(name: str) -> None:
    A = GRAPH.adjacency().to(torch.float64)
    x0 = torch.zeros(6, 2, dtype=torch.float64)
    traj = solve(Noise(0.5, A), x0, 1.0, GRAPH, solver=f"torchsde:{name}", steps=3)
    seed = int(traj.stats.reason.split("seed ")[1].split(";")[0])
    if name != "srk":
        want = 0.5 * A.to_dense() @ Brownian(seed, (6, 2))(1.0)
        torch.testing.assert_close(traj.final, want, rtol=1e-12, atol=1e-12)
    else:
        assert 0.1 < float(traj.final.std()) < 2.0


def test_states_without_channels_and_in_single_precision_pass() -> None:
    for x0 in (torch.ones(6), torch.ones(6, 2, 2)):
        ends = [
            solve(Heat() + Noise(0.3), x0, 1.0, GRAPH, solver=s, steps=9, generator=seeded()).final
            for s in ("torchsde:heun", "stochastic_heun")
        ]
        assert ends[0].shape == x0.shape
        assert ends[0].dtype == torch.float32
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_long_solve_neither_recurses_nor_crawls() -> None:
    # torchsde's issues 105 and 109: RecursionError on long horizons, slow searches.
    x0 = torch.zeros(2, 1)
    traj = solve(Noise(0.1), x0, 200.0, solver="torchsde:srk", steps=2_000)
    assert traj.stats.accepted == 2_000


@pytest.mark.parametrize("convention", ["ito", "stratonovich"])
def test_a_bound_field_goes_unchanged_into_torchsde(convention: str) -> None:
    x0, ts = state(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    bound = Growth(convention).bind(GRAPH, x0)
    assert (bound.noise_type, bound.sde_type) == ("diagonal", convention)
    W = torchsde.BrownianInterval(
        0.0, 1.0, size=(6, 3), dtype=x0.dtype, entropy=5, levy_area_approximation="space-time"
    )
    # Their default method, and another of theirs that converges to the same solution.
    other = {"ito": "milstein", "stratonovich": "heun"}[convention]
    ends = [
        torchsde.sdeint(bound, x0, ts, bm=W, method=method, dt=1 / 64)[-1]
        for method in (None, other)
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=0.02, atol=0.02)
    assert (ends[0] - x0).abs().max() > 0.1


def test_an_operator_goes_into_torchsde_with_a_brownian_motion() -> None:
    x0, ts = state(), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    A = GRAPH.adjacency().to(torch.float64)
    bound = Noise(0.5, A).bind(GRAPH, x0)
    W = torchsde.BrownianInterval(0.0, 1.0, size=(6, 3), dtype=x0.dtype, entropy=5)
    x = torchsde.sdeint(bound, x0, ts, bm=W, method="euler", dt=0.25)
    want = x0 + 0.5 * A.to_dense() @ W(0.0, 1.0)
    torch.testing.assert_close(x[-1], want, rtol=1e-12, atol=1e-12)


def test_a_deterministic_field_has_no_face_for_torchsde() -> None:
    bound = Heat().bind(GRAPH, state())
    for name in ("f", "g", "noise_type", "sde_type"):
        assert not hasattr(bound, name)
        assert not hasattr(Heat() + Noise(1.0), name)
    with pytest.raises(ValueError, match="noise_type"):
        torchsde.sdeint(bound, state(), torch.tensor([0.0, 1.0]))


def test_torchsde_is_not_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, torch, neuralpde, solvers.torchsde_adapter, neuralpde.peers;"
        "from neuralpde.fields import Heat, Noise;"
        "neuralpde.solve(Noise(1.0), torch.ones(2), 1.0, steps=2);"
        "print('torchsde' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def gradients(field: Field, solver: str, grad: str, steps: int) -> tuple[Tensor, ...]:
    x0 = state().requires_grad_()
    traj = solve(
        field, x0, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), GRAPH, solver=solver,
        steps=steps, grad=grad, generator=seeded(2),
    )  # fmt: skip
    assert traj.stats.gradient == grad
    loss = traj.x[1:].square().mean()
    return torch.autograd.grad(loss, (x0, *field.parameters()))


def test_taped_gradients_are_those_of_our_own_steppers() -> None:
    field = Growth()
    theirs = gradients(field, "torchsde:euler", "tape", 16)
    ours = gradients(field, "euler_maruyama", "replay", 16)
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_the_adjoint_of_reversible_heun_is_exact_and_others_approach() -> None:
    field = Growth("stratonovich")
    taped = gradients(field, "torchsde:reversible_heun", "tape", 16)
    adjoint = gradients(field, "torchsde:reversible_heun", "adjoint", 16)
    for one, other in zip(adjoint, taped, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for kind, name in ((field, "midpoint"), (Growth(), "milstein"), (Growth(), "srk")):
        gaps = []
        for n in (16, 128):
            pairs = (gradients(kind, f"torchsde:{name}", g, n) for g in ("adjoint", "tape"))
            gaps.append(max(float((a - b).abs().max()) for a, b in zip(*pairs, strict=True)))
        assert gaps[1] < min(gaps[0], 0.05)


def test_the_adjoint_says_that_it_is_inexact_and_needs_equal_steps() -> None:
    x0 = state().requires_grad_()
    arguments = {"steps": 8, "grad": "adjoint"}
    traj = solve(Growth(), x0, 1.0, GRAPH, solver="torchsde:milstein", **arguments)
    assert "caution: gradients of the continuous adjoint are inexact" in traj.stats.reason
    for wrong in ({"schedule": "cosine"}, {"t": torch.tensor([0.0, 0.3, 1.0])}):
        given = {"t": 1.0, **arguments, **wrong}
        with pytest.raises(ValueError, match="torchsde's adjoint takes equal steps"):
            solve(Growth(), x0, graph=GRAPH, solver="torchsde:milstein", **given)
    with pytest.raises(ValueError, match="torchsde offers 'tape' and 'adjoint'"):
        solve(Growth(), x0, 1.0, GRAPH, solver="torchsde:euler", steps=4, grad="replay")


def test_conventions_that_a_method_does_not_follow_are_refused() -> None:
    for name in (*STRATONOVICH, "reversible_heun"):
        with pytest.raises(ValueError, match="use 'torchsde:milstein'"):
            solve(Growth(), state(), 1.0, GRAPH, solver=f"torchsde:{name}", steps=4)
    for name in ("euler", "srk"):
        with pytest.raises(ValueError, match="use 'torchsde:heun'"):
            solve(Growth("stratonovich"), state(), 1.0, GRAPH, solver=f"torchsde:{name}", steps=4)
    noise = Noise(0.5, GRAPH.adjacency())
    with pytest.raises(ValueError, match="asks for the matrix g itself"):
        solve(noise, state(), 1.0, GRAPH, solver="torchsde:reversible_heun", steps=4)


def test_requests_that_torchsde_cannot_fulfil_are_refused() -> None:
    noisy, x0 = Heat() + Noise(0.3), state()
    cases = [
        ({"steps": None}, "takes fixed steps"),
        ({"t": (1.0, 0.0)}, "forwards in time alone"),
        ({"save": "steps"}, "save='steps'"),
        ({"field": Heat()}, "declares no noise"),
        ({"x0": (x0, x0), "field": Noise((1.0, 1.0)), "graph": None}, "x0 is a tuple"),
    ]
    plain = {"field": noisy, "x0": x0, "t": 1.0, "graph": GRAPH, "steps": 4}
    for changed, text in cases:
        with pytest.raises(ValueError, match=text):
            solve(**{**plain, **changed}, solver="torchsde:heun")
    with pytest.raises(ValueError, match=r"torchsde method 'milsten'.*milstein"):
        solve(**plain, solver="torchsde:milsten")
    with pytest.raises(ValueError, match="torchsde method 'adjoint_reversible_heun'"):
        solve(**plain, solver="torchsde:adjoint_reversible_heun")


def test_a_graph_that_fails_keeps_what_was_reached() -> None:
    edges = torch.cat([ring(3).edge_index, ring(3).edge_index + 3], 1)
    pair = Graph(edges, batch=torch.tensor([0, 0, 0, 1, 1, 1]))
    x0 = torch.tensor([[0.1]] * 3 + [[30.0]] * 3, dtype=torch.float64)
    field = Reaction([0.0, 0.0, 0.0, 1.0]) + Noise(0.01)
    times = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    with pytest.raises(SolveFailed, match=r"graph 1 stopped at t=0\.\d+: .* use more of them") as e:
        solve(field, x0, times, pair, solver="torchsde:heun", steps=20)
    traj = e.value.trajectory
    assert traj.status == ("done", "not_finite")
    assert traj.x[:, :3].isfinite().all()
    assert traj.x[0, 3:].isfinite().all()
    assert traj.x[-1, 3:].isnan().all()
    assert 0 < float(traj.ended[1]) < 1
    with pytest.raises(SolveFailed, match="the field returned nan or inf at t=0 in 1 rows"):
        solve(
            Reaction([0.0]) + Bad(), torch.zeros(6, 1), 1.0, GRAPH, solver="torchsde:euler", steps=4
        )


class Bad(Field):
    noise = 1.0

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] == 2, torch.nan, 0.0 * x)


def test_an_interval_without_length_has_one_state() -> None:
    x0 = state()
    traj = solve(Heat() + Noise(1.0), x0, (1.0, 1.0), GRAPH, solver="torchsde:euler", steps=4)
    assert torch.equal(traj.x, torch.stack([x0, x0]))
    assert np.isfinite(traj.stats.seconds)
