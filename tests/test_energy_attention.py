"""The energy of attention diffusion, by every route, against an eigendecomposition."""

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, data, solve
from neuralpde.fields import GRAND


def attended(graph: Graph, x0: Tensor) -> GRAND:
    """Linear attention diffusion with weights that matter, bound."""
    torch.manual_seed(3)
    field = GRAND(x0.shape[1], heads=2, rate=1.0).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return field.bind(graph, x0)


def energies(field: GRAND, graph: Graph, x0: Tensor, times: Tensor) -> Tensor:
    """tr(x'Lx) along V e^(Dt) V^-1 x0, with the generator's eigenvalues D and eigenvectors V."""
    assert field.operator is not None
    values, vectors = torch.linalg.eig(field.operator.to_dense().detach())
    start = torch.linalg.solve(vectors, x0.to(vectors.dtype))
    L = graph.laplacian(dtype=torch.float64).to_dense()
    found = []
    for t in times.tolist():
        x = (vectors @ ((values * t).exp()[:, None] * start)).real
        found.append((x * (L @ x)).sum())
    return torch.stack(found)


@pytest.mark.parametrize(
    ("solver", "scale", "rtol", "close"),
    [
        ("uniformisation", "state", 1e-10, 1e-6),
        ("dopri5", "state", 1e-8, 1e-4),
        ("tsit5", "deviation", 1e-6, 1e-3),
    ],
)
def test_attention_energy_is_that_of_the_eigenvectors(
    solver: str, scale: str, rtol: float, close: float
) -> None:
    graph = data.karate()
    x0 = torch.randn(34, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = attended(graph, x0)
    times = torch.linspace(0.0, 6.0, 9, dtype=torch.float64)
    with torch.no_grad():
        traj = solve(field, x0, times, graph, solver=solver, rtol=rtol, error_scale=scale)
    assert traj.energy is not None
    want = energies(field, graph, x0, traj.energy.t)
    assert int(traj.energy.y.isnan().sum()) == 0
    torch.testing.assert_close(traj.energy.y, want, rtol=close, atol=0.0)
    assert want[-1] < 0.1 * want[0]
