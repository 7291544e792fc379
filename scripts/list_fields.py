"""Write the table of all fields, docs/fields.md: equation, paper, and what solvers see of each.

Every field of the registry is bound and solved once on a small graph, so that the table says what
is, not what was meant.

    python scripts/list_fields.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from neuralpde import catalogue, solve
from neuralpde.fields import Field
from neuralpde.fields.registry import FIELDS, Entry, first_state

HEAD = """# Fields

Written by `python scripts/list_fields.py` from `neuralpde/fields/registry.py`; a test compares.
The name is the one that `python scripts/solve_graph_pde.py --field NAME` takes; the class stands in
`neuralpde.fields`. The structure is what solvers see of the bound field: A a linear operator, b a
constant, "rest" everything else. The last column but one is what `solver="auto"` takes for it.

| name | class | equation | structure | auto | paper |
|---|---|---|---|---|---|
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder; default docs")
    return parser.parse_args(arguments)


def structure(bound: Field) -> str:
    """What a bound field shows of itself, in a few words."""
    if bound.has_force:
        found = "force, linear" if bound.stiffness is not None else "force"
        damped = bool((torch.as_tensor(bound.damping) != 0).any())
        found += ", damped" if damped else ""
    else:
        parts = []
        if bound.operator is not None:
            parts.append("A x")
        if bound.source is not None:
            parts.append("b")
        if bound.has_rest:
            parts.append("rest")
        found = " + ".join(parts)
    operator = bound.operator
    if operator is not None:
        kinds = (
            (operator.self_adjoint, "A self-adjoint"),
            (operator.generator is not None, "a generator"),
        )
        found += "".join(f", {word}" for holds, word in kinds if holds)
    found += ", noise" if bound.noise is not None else ""
    return found + (", descends" if bound.lyapunov is not None and bound.order == 1 else "")


def row(name: str, entry: Entry) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    graph = catalogue.grid(4, 4)
    channels = entry.channels or 2
    field = entry.make(channels).double().eval()
    x0 = first_state(field, graph, torch.randn(16, channels, dtype=torch.float64))
    with torch.no_grad():
        bound = field.bind(graph, x0)
        traj = solve(bound, x0, 0.1, graph, steps=entry.steps)
    cells = (
        f"`{name}`",
        f"`{entry.name}`",
        entry.equation,
        structure(bound),
        f"`{traj.stats.solver}`",
        entry.paper,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the page and say where it is."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    page = args.out / "fields.md"
    page.write_text(HEAD + "\n".join(row(*item) for item in FIELDS.items()) + "\n")
    print(f"wrote {len(FIELDS)} fields to {page}")


if __name__ == "__main__":
    main()
