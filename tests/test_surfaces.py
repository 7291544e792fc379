"""Heat on triangulated surfaces: the error in space falls with the square of the mesh width."""

import numpy as np
import torch
from scipy.linalg import expm
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat

MAJOR, MINOR, TIME = 2.0, 1.0, 0.5


def distance(graph: Graph, x: Tensor, want: Tensor) -> float:
    """Root mean square over the surface."""
    assert graph.node_weight is not None
    area = graph.node_weight / graph.node_weight.sum()
    return float((area * (x - want).square()).sum().sqrt())


def heated(graph: Graph, x0: Tensor) -> Tensor:
    traj = solve(Heat(), x0[:, None], TIME, graph, rtol=1e-9)
    assert traj.stats.solver == "chebyshev"
    return traj.final[:, 0]


def test_heat_on_a_sphere_converges_with_second_order() -> None:
    # z is a spherical harmonic of degree 1, so heat damps it by e^(-2t).
    errors = []
    for subdivisions in (3, 4, 5):
        sphere = catalogue.sphere(subdivisions)
        z = sphere.pos[:, 2].double()
        errors.append(distance(sphere, heated(sphere, z), np.exp(-2 * TIME) * z))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert errors[-1] < 1e-3
    assert np.allclose(orders, 2.0, atol=0.1), orders


def around_the_tube(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles, and cos(theta) after TIME by Fourier collocation of the one-dimensional problem.

    Functions of the tube's angle alone obey u_t = (w u')' / (r^2 w) with w = R + r cos(theta).
    """
    theta = 2 * np.pi * np.arange(points) / points
    waves = np.fft.fftfreq(points, 1 / points)
    waves[points // 2] = 0.0
    D = np.real(np.fft.ifft(1j * waves[:, None] * np.fft.fft(np.eye(points), axis=0), axis=0))
    w = MAJOR + MINOR * np.cos(theta)
    generator = D @ (w[:, None] * D) / (MINOR**2 * w[:, None])
    return theta, expm(TIME * generator) @ np.cos(theta)


def test_heat_on_a_torus_converges_with_second_order() -> None:
    _, exact = around_the_tube(64)
    spectrum = np.fft.rfft(exact) / len(exact)
    errors = []
    for columns in (12, 24, 48):
        torus = catalogue.torus_surface(3 * columns, columns, MAJOR, MINOR)
        x, y, z = torus.pos.double().T
        angle = torch.atan2(z, torch.hypot(x, y) - MAJOR).numpy()
        waves = np.arange(len(spectrum))
        series = np.exp(1j * angle[:, None] * waves) * spectrum
        want = torch.from_numpy(np.real(series[:, 0] + 2 * series[:, 1:].sum(1)))
        errors.append(distance(torus, heated(torus, torch.from_numpy(np.cos(angle))), want))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert errors[-1] < 1e-3
    assert np.allclose(orders, 2.0, atol=0.15), orders
