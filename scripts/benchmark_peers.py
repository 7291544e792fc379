"""The same nonlinear field at the same tolerances by every library that is installed.

    python scripts/benchmark_peers.py              # torchdiffeq and scipy always
    pip install torchode diffrax                   # optional, in an environment of their own
    python scripts/benchmark_peers.py --nodes 19717 --pairs 44324 --channels 64
    python scripts/benchmark_peers.py --smoke

dx/dt = tanh(A x) - x, dopri5 (scipy: RK45) at rtol 1e-4, atol 1e-6. A ratio is the median of
paired ratios, the peer's time over ours; errors are relative to a float64 reference. diffrax is
timed after it has compiled. Written to runs/benchmark_peers (csv, markdown).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import torchdiffeq
from scipy.integrate import solve_ivp
from torch import Tensor

from analysis.tables import Table
from analysis.timing import compare, relative_error
from neuralpde import Graph, catalogue, solve
from neuralpde.operators import SparseOperator

END, RTOL, ATOL = 10.0, 1e-4, 1e-6
Peer = Callable[[], Tensor]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2_708)
    parser.add_argument("--pairs", type=int, default=5_278)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--smoke", action="store_true", help="a tiny graph, one round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_peers"))
    return parser.parse_args(arguments)


def random_graph(nodes: int, pairs: int) -> Graph:
    """The same random graph every time."""
    return catalogue.random_pairs(nodes, pairs, generator=torch.Generator().manual_seed(0))


def by_torchdiffeq(A: SparseOperator, x: Tensor) -> Peer:
    """Its dopri5."""
    t = torch.tensor([0.0, END])
    return lambda: torchdiffeq.odeint(
        lambda t, x: torch.tanh(A @ x) - x, x, t, rtol=RTOL, atol=ATOL, method="dopri5"
    )[-1]


def by_scipy(A: SparseOperator, x: Tensor) -> Peer:
    """Its RK45 on numpy arrays with its own product."""
    import numpy as np

    matrix, start = A.to_scipy(), x.numpy()

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        state = y.reshape(start.shape)
        return (np.tanh(matrix @ state) - state).ravel()

    def run() -> Tensor:
        found = solve_ivp(slope, (0.0, END), start.ravel(), rtol=RTOL, atol=ATOL)
        return torch.from_numpy(found.y[:, -1].reshape(start.shape))

    return run


def by_torchode(A: SparseOperator, x: Tensor) -> Peer:
    """Its Dopri5, the whole graph as one sample of its batch."""
    import torchode

    def slope(t: Tensor, y: Tensor) -> Tensor:
        state = y.reshape(x.shape)
        return (torch.tanh(A @ state) - state).reshape(1, -1)

    term = torchode.ODETerm(slope)
    control = torchode.IntegralController(ATOL, RTOL, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term), control)
    problem = torchode.InitialValueProblem(x.reshape(1, -1), t_eval=torch.tensor([[0.0, END]]))
    return lambda: solver.solve(problem).ys[0, -1].reshape(x.shape)


def by_diffrax(A: SparseOperator, x: Tensor) -> Peer:
    """Its Dopri5 with jax's sparse product, compiled before it is timed."""
    import diffrax
    import jax
    import numpy as np
    from jax.experimental import sparse

    matrix = sparse.BCSR.from_scipy_sparse(A.to_scipy())
    start = jax.numpy.asarray(x.numpy())
    term = diffrax.ODETerm(lambda t, y, args: jax.numpy.tanh(matrix @ y) - y)
    control = diffrax.PIDController(rtol=RTOL, atol=ATOL)

    @jax.jit
    def run(y: jax.Array) -> jax.Array:
        found = diffrax.diffeqsolve(
            term, diffrax.Dopri5(), 0.0, END, None, y, stepsize_controller=control
        )
        assert found.ys is not None
        return found.ys[-1]

    return lambda: torch.from_numpy(np.array(run(start)))


PEERS = {"torchdiffeq": by_torchdiffeq, "scipy": by_scipy, "torchode": by_torchode,
         "diffrax": by_diffrax}  # fmt: skip


def main() -> None:
    """Compare with each peer, print each row as it comes, write the table."""
    args = parse()
    nodes, pairs, channels = (
        (100, 300, 8) if args.smoke else (args.nodes, args.pairs, args.channels)
    )
    graph = random_graph(nodes, pairs)
    x = torch.randn(nodes, channels, generator=torch.Generator().manual_seed(1))
    A, exact = (graph.like(state).adjacency("row") for state in (x, x.double()))
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    with torch.no_grad():
        reference = solve(
            lambda t, x: torch.tanh(exact @ x) - x,
            x.double(), END, rtol=1e-10, atol=1e-12, solver="dopri8",
        ).final  # fmt: skip

        def ours() -> Tensor:
            return solve(lambda t, x: torch.tanh(A @ x) - x, x, END, solver="dopri5").final

        for name, make in PEERS.items():
            if find_spec(name) is None:
                print(f"{name} is not installed")
                continue
            peer = make(A, x)
            table.add(
                compare(
                    "tanh(Ax) - x", f"{nodes:,} x {channels}", {name: peer, "ours": ours},
                    rounds=1 if args.smoke else args.rounds,
                    **{"error": relative_error(ours(), reference),
                       "baseline error": relative_error(peer(), reference),
                       "threads": torch.get_num_threads()},
                )
            )  # fmt: skip
            table.save(args.out / "benchmark")
            row = table.rows[-1]
            print(f"{name}: {row['baseline seconds']:.3g} s, ours {row['seconds']:.3g} s, "
                  f"{row['ratio']:.3g}x", flush=True)  # fmt: skip
    print(table.markdown())


if __name__ == "__main__":
    main()
