"""What the repository promises about itself: floors, faces, sizes, names, types, import budget."""

import ast
import configparser
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("neuralpde", "solvers", "analysis")
LIBRARY = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
EVERYTHING = LIBRARY + [
    path for name in ("scripts", "tests") for path in (ROOT / name).glob("*.py")
]
FACES = [path for path in LIBRARY if path.name == "__init__.py"]
BELOW = {  # what each floor must not know
    "solvers": {"neuralpde", "analysis", "torch_geometric"},
    "neuralpde": {"analysis"},
    "analysis": set(),
}
SLOW_IMPORTS = ("torch_geometric", "torchdiffeq", "torchsde", "matplotlib")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_roots(path: Path) -> set[str]:
    """The top-level names that a file imports, also inside its functions."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0] if node.level == 0 else ".")
    return roots


def face_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def what_is_missing(value: object) -> str:
    """What the docstring of a public class or function still lacks."""
    own = value.__doc__ if inspect.isclass(value) else inspect.getdoc(value)
    if not own:
        return "a docstring"
    if not own.strip().split("\n", 1)[0].endswith((".", ":", "?")):
        return "one line that says what it is"
    is_error = inspect.isclass(value) and issubclass(value, BaseException)
    if ">>>" in own or is_error or getattr(value, "_is_protocol", False):
        return ""
    return "an example"


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_nothing_goes_up(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    outside = {"tests", "scripts", "conftest", "."}  # "." is a relative import
    assert not imported_roots(path) & (BELOW[floor] | outside)


@pytest.mark.parametrize("path", FACES, ids=relative)
def test_faces_are_short_and_define_nothing(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 120, "a folder of so many names is two folders"
    statements = ast.parse(text).body
    assert ast.get_docstring(ast.parse(text)), "a face says what its folder holds"
    for statement in statements[1:]:
        if isinstance(statement, ast.Assign):
            assert {ast.unparse(name) for name in statement.targets} <= {"__all__", "__version__"}
        else:
            assert isinstance(statement, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("path", EVERYTHING, ids=relative)
def test_files_stay_short(path: Path) -> None:
    limit = 180 if path.parent.name == "scripts" else 350
    assert len(path.read_text().splitlines()) <= limit, "split it where it holds two ideas"


def test_files_are_named_after_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "misc", "common", "core", "base"}
    parts = {part for path in LIBRARY for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not parts & vague
    assert [path for path in LIBRARY if path.stem == path.parent.name] == []


def test_tests_stay_flat() -> None:
    # A tests/solvers/__init__.py would shadow the package solvers.
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_importing_is_quick() -> None:
    code = (
        "import sys, neuralpde, solvers;"
        f"print(*[name for name in {SLOW_IMPORTS!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_version_stands_in_one_place() -> None:
    homes = [relative(p) for p in LIBRARY if re.search(r"^__version__\s*=", p.read_text(), re.M)]
    assert homes == ["neuralpde/__init__.py"]
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["metadata"]["version"] == "attr: neuralpde.__version__"


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_shipped(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_embedded_data_are_small_and_explained() -> None:
    files = ROOT / "neuralpde" / "data" / "files"
    notes = (files / "README.md").read_text()
    for path in files.iterdir():
        assert path.stat().st_size < 300_000
        assert path.name == "README.md" or path.name in notes, "state its source and licence"


@pytest.mark.parametrize("path", FACES, ids=relative)
def test_faces_offer_what_they_list(path: Path) -> None:
    module = importlib.import_module(face_name(path))
    listed = list(getattr(module, "__all__", ()))
    assert len(listed) == len(set(listed))
    assert [name for name in listed if not hasattr(module, name)] == []


@pytest.mark.parametrize("path", FACES, ids=relative)
def test_public_names_explain_themselves(path: Path) -> None:
    module = importlib.import_module(face_name(path))
    offered = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    documented = {n: v for n, v in offered.items() if inspect.isclass(v) or inspect.isroutine(v)}
    lacking = {name: what_is_missing(value) for name, value in documented.items()}
    assert {name: lack for name, lack in lacking.items() if lack} == {}


def test_the_index_is_never_recommended() -> None:
    # The name belongs to another project there.
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *EVERYTHING]:
        if path != Path(__file__).resolve():
            assert not re.search(r"pip install\s+(-U\s+)?neuralpde", path.read_text()), path
