"""Exact solves of linear and affine problems: the tolerance is a guarantee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from solvers.chebyshev import Chebyshev
from solvers.guarantee import Guarantee
from solvers.lanczos import Lanczos
from solvers.problem import Operator
from solvers.rows import Rows
from solvers.uniformisation import Uniformisation
from solvers.unitary import Unitary

Method = Literal["auto", "chebyshev", "uniformisation", "lanczos"]
Gradients = Literal["auto", "tape", "reversible"]
METHODS, GRADIENTS = get_args(Method), get_args(Gradients)


@dataclass
class Exact:
    """The states of an exact solve.

    Attributes:
        x: ``[times, nodes, ...]``, the first the initial state itself.
        products: products with the operator that it took.
        degree: largest degree of a series.
        reason: method, degree and norm of the guarantee, in words.
        method: "chebyshev", "uniformisation" or "lanczos".

    Example:
        >>> Exact(torch.zeros(2, 3, 1), 7, 7, "", "chebyshev").products
        7
    """

    x: Inexact[Tensor, "times nodes ..."]
    products: int
    degree: int
    reason: str
    method: str


def propagate(
    A: Operator,
    x0: Inexact[Tensor, "nodes ..."],
    times: Float[Tensor, " times"] | Float[Tensor, "times graphs"],
    *,
    rtol: float,
    source: Inexact[Tensor, "nodes ..."] | None = None,
    method: Method = "auto",
    grad: Gradients = "auto",
) -> Exact:
    """Solve ``x' = A x + source`` with a guaranteed error.

    ``x(t) = e^(tA) x0 + t phi_1(tA) source`` is wrong by at most ``rtol max(|x0|, |x(t)|)`` in
    every graph at every time. The norm is Frobenius over nodes and channels for symmetric
    operators, weighted by the metric for self-adjoint ones, the max-norm for generators and
    stochastic matrices by rows and the 1-norm for those by columns. Half of the tolerance goes to
    the series, half to rounding; where single precision cannot hold its half, a graph is solved in
    float64 and cast. Entries of A are taken as given: if they were rounded to float32, that is
    the operator. A batch of graphs gives bit for bit what its graphs give alone.

    Args:
        A: self-adjoint operator, generator, or stochastic matrix; real. Or -i H with a
            self-adjoint H, which turns complex states both ways in time.
        x0: state, real or complex.
        times: offsets from the start, the first 0; for all graphs or for each. Negative ones run
            backwards, which diffusion does not allow.
        rtol: relative tolerance.
        source: a constant state, or None; unitary flows take none.
        method: "chebyshev" for self-adjoint operators and unitary flows, "uniformisation" for
            generators and stochastic ones; "auto" prefers the first. "lanczos", for self-adjoint
            operators, takes fewer products for few columns and clustered spectra; its error is
            bounded afterwards but for rounding, which is not, and a batch agrees with its graphs
            to rounding.
        grad: "tape" records every product and can be differentiated twice; "auto" and
            "reversible" keep two states for Chebyshev, whatever the degree, and about the root of
            the degree for uniformisation.

    Returns:
        The states, differentiable in x0, times, source and the tensors of A.

    Raises:
        ValueError: the operator allows no exact solve, ``rtol`` is below what float64 can hold,
            time runs against diffusion, or arguments do not fit.
        ArithmeticError: the operator's enclosure of its spectrum is wrong.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> path, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
        >>> L = SparseOperator(path, torch.tensor([1.0, -1.0, -1.0, 1.0]).double(), symmetric=True)
        >>> x0 = torch.tensor([[1.0], [-1.0]]).double()
        >>> exact = propagate(-L, x0, torch.tensor([0.0, 0.5 * np.log(2.0)]), rtol=1e-9)
        >>> exact.x[1].flatten().tolist()
        [0.5, -0.5]
    """
    core, start = A.core, _flat(x0, "x0", A)
    rows = Rows(core.batch if A.num_graphs > 1 else None, A.num_graphs)
    series = _series(core, rows, method)
    offsets, x = _offsets(times, rows), A.enter(start)
    if source is not None and (source.shape != x0.shape or source.is_complex() > x0.is_complex()):
        raise ValueError(
            f"source is {source.dtype} of shape {tuple(source.shape)}; it must be like x0, "
            f"{x0.dtype} of shape {tuple(x0.shape)}"
        )
    b = None if source is None else A.enter(_flat(source.to(x0.dtype), "source", A))
    if grad not in GRADIENTS:
        raise ValueError(f"grad is {grad!r}; allowed: {', '.join(GRADIENTS)}")
    if A.hamiltonian is not None and (source is not None or not x0.is_complex()):
        raise ValueError(
            "unitary flow turns complex states and takes no source: give a complex x0, and name an "
            "explicit method (solver='tsit5') for x' = -i H x + source"
        )
    if not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol}; exact solves take a number between 0 and 1")
    series.check(offsets)
    arguments, name = (offsets, times, x, b, rtol, grad == "tape"), series.name
    solve: Guarantee | Lanczos
    if method == "lanczos":
        solve, name = Lanczos(Chebyshev(core, rows), *arguments), method
    else:
        solve = Guarantee(series, *arguments)
    states, shape = A.leave(solve.run()), (len(offsets), *x0.shape)
    if core is not A:
        # The way there and back may round.
        states = torch.cat([start[None], states[1:]])
    if x0.is_complex():
        states = torch.view_as_complex(states.reshape(*shape, 2))
    return Exact(states.reshape(shape), solve.products, solve.degree, solve.reason(), name)


def _series(A: Operator, rows: Rows, method: Method) -> Chebyshev | Uniformisation:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}")
    if A.hamiltonian is not None:
        if method not in ("auto", "chebyshev"):
            raise ValueError(
                f"{method} is for real operators; unitary flow goes by method='chebyshev'"
            )
        return Unitary(A, rows)
    positive = A.generator is not None or A.stochastic is not None
    if method in ("chebyshev", "lanczos") and not A.self_adjoint:
        name = "Chebyshev series need" if method == "chebyshev" else "lanczos needs"
        raise ValueError(
            f"{name} a self-adjoint operator, and this one is not known to be: "
            + ("use method='uniformisation'" if positive else UNDIRECTED)
        )
    if method == "lanczos" and not A.separate:
        raise ValueError(
            "lanczos propagates each column of a state on its own, and this operator mixes them: "
            "use method='chebyshev'"
        )
    if method == "uniformisation" and not positive:
        raise ValueError(
            "uniformisation needs a generator or a stochastic operator, and this one is not known "
            "to be: " + ("use method='chebyshev'" if A.self_adjoint else UNDIRECTED)
        )
    if not (A.self_adjoint or positive):
        raise ValueError(
            "exact solves need an operator that is self-adjoint, a generator or stochastic, and "
            f"this one is not known to be: {UNDIRECTED}"
        )
    uniform = method == "uniformisation" or not A.self_adjoint
    return Uniformisation(A, rows) if uniform else Chebyshev(A, rows)


UNDIRECTED = (
    "make the graph undirected (graph.undirected()), or name an explicit method (solver='tsit5')"
)


def _offsets(times: Tensor, rows: Rows) -> Float[np.ndarray, "times graphs"]:
    offsets = times.detach().cpu().double().numpy()
    if offsets.ndim == 1:
        offsets = np.repeat(offsets[:, None], rows.num_graphs, axis=1)
    if offsets.ndim != 2 or offsets.shape[1] != rows.num_graphs:
        raise ValueError(
            f"times have shape {tuple(times.shape)}; give [times] for all graphs, or "
            f"[times, {rows.num_graphs}] for each of them"
        )
    if not np.isfinite(offsets).all() or (offsets[:1] != 0).any():
        raise ValueError("times are finite offsets from the start: the first is 0")
    return offsets


def _flat(x: Tensor, name: str, A: Operator) -> Float[Tensor, "nodes columns"]:
    if x.dim() == 0 or x.shape[0] != A.num_nodes:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; its first axis must be the {A.num_nodes} nodes"
        )
    if not (x.is_floating_point() or x.is_complex()):
        raise ValueError(f"{name} is {x.dtype}; give a floating or complex tensor")
    real = torch.view_as_real(x) if x.is_complex() else x
    return real.reshape(len(x), real.shape[1:].numel()).contiguous()
