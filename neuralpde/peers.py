"""The routes over torchdiffeq, scipy and torchsde: their solvers, our trajectories."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from neuralpde.answering import as_trajectory, check_requests, distinct, unmoved
from neuralpde.calling import checked_field, hides_tensors
from neuralpde.driving import check_leaves, check_request, noise_of, refuse_noise
from neuralpde.marching import EXPLOSION
from neuralpde.operators.product import products
from neuralpde.problem import Problem, check_resolution
from neuralpde.timing import fixed_grid
from solvers import scipy_adapter, torchdiffeq_adapter, torchsde_adapter
from solvers.failure import unknown_name
from solvers.noise import NoiseTerm
from solvers.stochastic import drawn_seed
from solvers.trajectory import Trajectory

CAUTION = (
    "caution: gradients of the continuous adjoint are inexact and unstable for diffusion: it "
    "integrates the state backwards in time, where errors grow by up to e^(lambda T)"
)


@dataclass
class TorchdiffeqRoute:
    """One of torchdiffeq's methods, "torchdiffeq:<method>".

    Steps follow torchdiffeq's own control and norms; a batch shares its step, chosen for its worst
    graph. Measures and the energy are evaluated at the saved times.

    Args:
        method: Its name in torchdiffeq, checked at once.

    >>> TorchdiffeqRoute("dopri5").name
    'torchdiffeq:dopri5'
    """

    method: str

    def __post_init__(self) -> None:
        """Look the method up."""
        self.adapter = torchdiffeq_adapter.Method(self.method)
        self.name = f"torchdiffeq:{self.method}"

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        self._check(problem)
        t, slots = distinct(problem)
        grad = self._gradient(problem)
        reason = ["asked for by name"]
        if problem.rows.num_graphs > 1:
            reason.append(
                "one step shared by all graphs"
                if problem.fixed
                else "one step shared by all graphs; the error norm is the largest RMS of a graph, "
                "so that none is diluted"
            )
        if grad == "adjoint":
            reason.append(CAUTION)
        if not self.adapter.visible:
            reason.append("its steps cannot be seen, so max_steps does not bound them")
        grid = fixed_grid(problem, problem.times[:, :1])[:, 0] if problem.fixed else None
        before = products.total
        with torch.set_grad_enabled(grad != "none" and torch.is_grad_enabled()):
            answer = (
                unmoved(problem)
                if len(t) == 1
                else torchdiffeq_adapter.integrate(
                    checked_field(problem),
                    problem.x0,
                    t,
                    self.adapter,
                    packed=problem.packed,
                    rows=problem.rows,
                    rtol=problem.rtol,
                    atol=problem.atol,
                    grid=grid,
                    max_steps=problem.max_steps,
                    leaves=problem.leaves if grad == "adjoint" else None,
                )
            )
        spent = products.total - before
        if answer.growth > EXPLOSION:
            warnings.warn(
                f"|x| grew {answer.growth:.2g}-fold on this fixed grid; unless the field grows by "
                "itself, the step lies outside the stability interval: use more steps or an "
                "adaptive solver",
                stacklevel=4,
            )
        return as_trajectory(problem, answer, slots, self.name, reason, grad, spent)

    def _check(self, problem: Problem) -> None:
        refuse_noise(problem, self.name)
        check_requests(problem, self.name)
        if problem.fixed and not self.adapter.fixed:
            raise ValueError(
                f"solver {self.name!r} chooses its own steps: leave out steps= and schedule=, or "
                "use a fixed-grid method such as 'torchdiffeq:rk4'"
            )
        if self.adapter.fixed and not problem.fixed:
            raise ValueError(
                f"solver {self.name!r} takes fixed steps: give steps=n (and schedule=), or use an "
                "adaptive one such as 'torchdiffeq:dopri5'"
            )
        if not problem.fixed:
            check_resolution(problem)
        if not self.adapter.visible:
            # It is scipy's LSODA.
            scipy_adapter.check(scipy_adapter.Method("LSODA"), problem.x0, problem.rtol)

    def _gradient(self, problem: Problem) -> str:
        if problem.grad in ("replay", "reversible"):
            raise ValueError(
                f"grad={problem.grad!r} is not for {self.name!r}: 'replay' belongs to our own "
                "steppers, 'reversible' to exact solves; torchdiffeq offers 'tape' and 'adjoint'"
            )
        if problem.grad == "none" or not torch.is_grad_enabled():
            return "none"
        if problem.grad == "adjoint":
            if not problem.knows_its_leaves and hides_tensors(problem):
                raise ValueError(
                    f"grad='adjoint' must know every tensor to differentiate, and {problem.name} "
                    "is a plain function that uses some that require grad; make it an nn.Module "
                    "or a Field, or use grad='tape'"
                )
            if problem.dtype.is_complex:
                raise ValueError(
                    f"torchdiffeq's adjoint is for real states and x0 is {problem.dtype}; use "
                    "grad='tape', or torch.view_as_real"
                )
            return "adjoint" if problem.needs_gradient else "none"
        if not self.adapter.visible and (problem.needs_gradient or hides_tensors(problem)):
            raise ValueError(
                f"no gradient flows through {self.name!r}: use grad='adjoint', another method, or "
                "torch.no_grad()"
            )
        return "tape"


@dataclass
class ScipyRoute:
    """One of scipy's methods, "scipy:<method>": small systems, float64 on the CPU, no gradients.

    Args:
        method: Its name in `scipy.integrate.solve_ivp`, checked at once.

    >>> ScipyRoute("BDF").name
    'scipy:BDF'
    """

    method: str

    def __post_init__(self) -> None:
        """Look the method up."""
        self.adapter = scipy_adapter.Method(self.method)
        self.name = f"scipy:{self.method}"

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        self._check(problem)
        t, slots = distinct(problem)
        before = products.total
        answer = (
            unmoved(problem)
            if len(t) == 1
            else scipy_adapter.integrate(
                checked_field(problem),
                problem.x0,
                t.detach().numpy(),
                self.adapter,
                rtol=problem.rtol,
                atol=problem.atol,
                max_steps=problem.max_steps,
            )
        )
        spent = products.total - before
        reason = ["asked for by name; in float64 on the CPU", *answer.notes]
        graphs = problem.rows.num_graphs
        if graphs > 1:
            reason.append("one step shared by all graphs, with one error norm over all of them")
            answer.status, answer.ended = answer.status * graphs, answer.ended * graphs
            answer.messages = {g: m for m in answer.messages.values() for g in range(graphs)}
        return as_trajectory(problem, answer, slots, self.name, reason, "none", spent)

    def _check(self, problem: Problem) -> None:
        refuse_noise(problem, self.name)
        check_requests(problem, self.name)
        if problem.fixed:
            raise ValueError(
                f"solver {self.name!r} chooses its own steps: leave out steps= and schedule=, or "
                "use a one-step method such as 'rk4'"
            )
        if problem.grad not in ("auto", "none"):
            raise ValueError(f"grad={problem.grad!r}: scipy has no gradients; see grad='none'")
        wanted = problem.grad == "auto" and torch.is_grad_enabled()
        if wanted and (problem.needs_gradient or hides_tensors(problem)):
            raise ValueError(
                "scipy has no gradients, and something here requires grad: use one of our solvers "
                "such as 'tsit5', or solve under torch.no_grad() (or with grad='none')"
            )
        scipy_adapter.check(self.adapter, problem.x0, problem.rtol)
        check_resolution(problem)


@dataclass
class TorchsdeRoute:
    """One of torchsde's methods, "torchsde:<method>": stochastic fields on fixed grids.

    It takes the steps of our grid, of any schedule, one by one. Every method but srk follows the
    Brownian path of the seed, as `euler_maruyama` and `stochastic_heun` do. grad="adjoint" is
    torchsde's stochastic adjoint, on equal steps; it is exact for reversible_heun alone.

    Args:
        method: Its name in torchsde, checked at once.

    References:
        Li, Wong, Chen and Duvenaud, Scalable gradients for stochastic differential equations,
        AISTATS 2020, arXiv:2001.01328; Kidger, Foster, Li and Lyons, Efficient and accurate
        gradients for neural SDEs, NeurIPS 2021, arXiv:2105.13493.

    >>> TorchsdeRoute("srk").name
    'torchsde:srk'
    """

    method: str

    def __post_init__(self) -> None:
        """Look the method up."""
        self.adapter = torchsde_adapter.Method(self.method)
        self.name = f"torchsde:{self.method}"

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        noise = self._check(problem)
        t, slots = distinct(problem)
        grad = self._gradient(problem, noise)
        seed = drawn_seed(problem.generator)
        reason = ["asked for by name", f"seed {seed}"]
        if self.adapter.needs_area:
            reason.append("a path of torchsde's, one for the whole batch")
        if grad == "adjoint" and not self.adapter.needs_matrix:
            reason.append(CAUTION)
        before = products.total
        with torch.set_grad_enabled(grad != "none" and torch.is_grad_enabled()):
            answer = (
                unmoved(problem)
                if len(t) == 1
                else torchsde_adapter.integrate(
                    checked_field(problem),
                    noise,
                    problem.x0[0],
                    fixed_grid(problem, problem.times[:, :1])[:, 0],
                    t.tolist(),
                    self.adapter,
                    seed=seed,
                    rows=problem.rows,
                    leaves=problem.leaves if grad == "adjoint" else None,
                )
            )
        spent = products.total - before
        return as_trajectory(problem, answer, slots, self.name, reason, grad, spent)

    def _check(self, problem: Problem) -> NoiseTerm:
        check_requests(problem, self.name)
        check_request(problem, self.name)
        noise = noise_of(problem)
        if noise is None:
            raise ValueError(
                f"{self.name!r} is for stochastic fields, and {problem.name} declares no noise: "
                "add Noise(scale) to it, or use a deterministic solver"
            )
        self.adapter.check(noise, problem.name)
        if problem.packed:
            raise ValueError(
                f"torchsde's state is a tensor and x0 is a tuple: {self.name!r} cannot take it; "
                "use 'euler_maruyama' or 'stochastic_heun'"
            )
        if problem.times[-1, 0] < problem.times[0, 0]:
            raise ValueError(
                f"torchsde runs forwards in time alone, and t goes from {problem.times[0, 0]:g} to "
                f"{problem.times[-1, 0]:g}; use 'euler_maruyama' or 'stochastic_heun'"
            )
        return noise

    def _gradient(self, problem: Problem, noise: NoiseTerm) -> str:
        if problem.grad in ("replay", "reversible"):
            raise ValueError(
                f"grad={problem.grad!r} is not for {self.name!r}: 'replay' belongs to our own "
                "steppers; torchsde offers 'tape' and 'adjoint'"
            )
        if problem.grad == "none" or not torch.is_grad_enabled():
            return "none"
        if problem.grad == "adjoint":
            check_leaves(problem, noise)
            return "adjoint" if problem.needs_gradient else "none"
        return "tape"


ROUTES: dict[str, Any] = {
    "torchdiffeq": TorchdiffeqRoute,
    "scipy": ScipyRoute,
    "torchsde": TorchsdeRoute,
}

Peer = TorchdiffeqRoute | ScipyRoute | TorchsdeRoute


def peer_route(peer: str, method: str) -> Peer:
    """The route over another library's solver.

    Args:
        peer: "torchdiffeq", "scipy" or "torchsde".
        method: A method's name there.

    Raises:
        ValueError: For unknown names, with the nearest one.

    >>> peer_route("scipy", "BDF").name
    'scipy:BDF'
    """
    if peer not in ROUTES:
        raise unknown_name("peer", peer, ROUTES)
    route: Peer = ROUTES[peer](method)
    return route
