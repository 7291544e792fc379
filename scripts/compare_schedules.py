"""Compare time schedules on flows and on graph fields, with shared seeds and paired tests.

    python scripts/compare_schedules.py                                   # oracle, a minute
    python scripts/compare_schedules.py --problem 8gaussians-moons --tight 0.3 --seeds 8
    python scripts/compare_schedules.py --train 5 --sigma 0.5 --steps 10  # trained bridges
    python scripts/compare_schedules.py --problem allen-cahn --steps 10 20 40 --rtol 1e-3 1e-5

Flows are bridges between two laws, by default with exact velocity and score ("oracle": what is
missed is the error of the steps), or trained. Written to --out as the runs come, and resumed from
there: rows, means, paired tests against uniform (csv, markdown), and figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from analysis import FieldProblem, compare, plots
from analysis.flow_problems import PILOT, TRAINING, FlowProblem
from neuralpde import catalogue, flows
from neuralpde.fields.registry import FIELDS, first_state
from solvers import schedules as known
from solvers.schedules import Schedule

PAIRS: dict[str, tuple[Callable[..., flows.Mixture], Callable[..., flows.Mixture]]] = {
    "8gaussians-moons": (flows.eight_gaussians, flows.moons),
    "8gaussians-checkerboard": (flows.eight_gaussians, flows.checkerboard),
    "gaussian-8gaussians": (lambda tight: flows.normal(2), flows.eight_gaussians),
}
CLOSED: dict[str, Schedule | str] = {
    "uniform": "uniform",
    "cosine": "cosine",
    "beta .6": known.Beta(0.6, 0.6),
    "sigmoid 6": known.Sigmoid(6.0),
    "power 2": known.Power(2.0),
    "logit": known.LogitUniform(0.01),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--problem", default="8gaussians-moons", choices=[*PAIRS, *FIELDS])
    add("--solvers", nargs="+", help="default: heun, and stochastic_heun for flows")
    add("--steps", nargs="+", type=int, default=[5])
    add("--rtol", nargs="+", type=float, default=[], help="step control too, by these tolerances")
    add("--seeds", type=int, default=8)
    add("--samples", type=int, default=4096)
    add("--sigma", type=float, default=1.0, help="noise of the bridge")
    add("--tight", type=float, default=0.3, help="factor of the spread of both ends")
    add("--train", type=int, default=0, metavar="K", help="train K networks instead of the oracle")
    add("--train-steps", type=int, default=8000)
    add("--graph", default="grid:10x10", help="of graph fields")
    add("--end", type=float, help="end time of graph fields; default: that of the registry")
    add("--out", type=Path, help="default runs/schedules-<problem>")
    args = parser.parse_args(arguments)
    args.out = args.out or Path(f"runs/schedules-{args.problem}")
    return args


def flow_problems(args: argparse.Namespace) -> list[FlowProblem]:
    """The oracle, or one problem for each trained network."""
    laws = tuple(make(tight=args.tight) for make in PAIRS[args.problem])
    path = flows.BrownianBridge(args.sigma)
    oracle = flows.MixtureFlow(*laws, path, args.sigma)
    models: list[flows.Model] = [oracle]
    if args.train:
        models = [trained(args, k, *laws) for k in range(args.train)]
    return [
        FlowProblem(model, *laws, path.ends, args.problem, k, args.samples)
        for k, model in enumerate(models)
    ]


def trained(args: argparse.Namespace, k: int, *laws: flows.Mixture) -> flows.Learned:
    """Network k, trained or read from its file."""
    file, path = args.out / f"network-{k}.pt", flows.BrownianBridge(args.sigma)
    torch.manual_seed(TRAINING + k)
    model = flows.Learned(flows.MLP(2, heads=2), path, args.sigma)
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    with tqdm(total=args.train_steps, desc=f"network {k}", disable=None) as bar:
        flows.train_bridge(
            model,
            *laws,
            flows.Independent(),
            steps=args.train_steps,
            generator=torch.Generator().manual_seed(TRAINING + k),
            progress=lambda step, loss: bar.update(step - bar.n),
        )
    torch.save(model.state_dict(), file)
    return model.eval()


def entropic(problem: FlowProblem, args: argparse.Namespace) -> dict[str, Schedule]:
    """The entropic family, fitted on pairs that no run sees."""
    path, generator = flows.BrownianBridge(args.sigma), torch.Generator().manual_seed(PILOT)
    x0, x1 = (law.sample(512, generator) for law in (problem.source, problem.target))
    kinds = {
        "entropic": flows.Entropic(p=0.5),
        "entropic p=1/3": flows.Entropic(p=1 / 3),
        "entropic p=1 mix=1/2": flows.Entropic(p=1.0, mix=0.5),
        "literal": flows.Entropic.literal(),
        "loss p=1/2": flows.Entropic("loss", p=0.5),
    }
    kind = torch.get_default_dtype() if args.train else torch.float64
    return {
        name: how.fit(path, x0.to(kind), x1.to(kind), problem.model.velocity, generator=generator)
        for name, how in kinds.items()
    }


def field_problem(args: argparse.Namespace) -> FieldProblem:
    """A field of the registry on a graph, from first states drawn by the seed."""
    entry, graph = FIELDS[args.problem], catalogue.named(args.graph).graph
    torch.manual_seed(0)
    channels = entry.channels or 4
    field = entry.make(channels).double().eval()

    def first(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(graph.num_nodes, channels, generator=generator, dtype=torch.float64)
        return first_state(field, graph, x)

    return FieldProblem(field, graph, first, args.end or entry.end, args.problem)


def main() -> None:
    """Run the study, print its tables, write it with its figures."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    is_flow, grids = args.problem in PAIRS, dict(CLOSED)
    problems: list[Any] = flow_problems(args) if is_flow else [field_problem(args)]
    if is_flow:
        grids |= entropic(problems[0], args)
    solvers = args.solvers or (["heun", "stochastic_heun"] if is_flow else ["heun"])
    with tqdm(desc="runs", disable=None) as bar:

        def count(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        study = compare(
            problems,
            schedules=grids,
            solvers=solvers,
            steps=args.steps,
            rtols=args.rtol,
            seeds=args.seeds,
            store=args.out / "runs.jsonl",
            progress=count,
        )
    study.save(args.out)
    settings = json.dumps({**vars(args), "command": sys.argv}, indent=1, default=str)
    (args.out / "settings.json").write_text(settings)
    print(study.table().markdown())
    metric = study.metrics[0]
    print(f"\nAgainst uniform, {metric}:\n{study.paired(metric).markdown()}")
    figures = {"grids": plots.grids(grids, args.steps[0])}
    figures |= {"rates": plots.rates(grids)} if is_flow else {}
    for s in solvers:
        figures[f"{metric}-{s}"] = study.plot(metric, problem=args.problem, solver=s)
    for name, ax in figures.items():
        ax.figure.savefig(args.out / f"{name.replace(' ', '-')}.png", dpi=200)
    print(f"wrote {args.out}/")


if __name__ == "__main__":
    main()
