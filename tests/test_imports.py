"""The packages import downwards only, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import jaxvalues

ROOT = Path(jaxvalues.__file__).parent

# From the ground up. Packages on one floor may import each other, but not in a circle.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("config", "statistics"),
    ("models", "data"),
    ("templates", "evaluation"),
    ("tuning", "formulations"),
    ("training", "generation", "remote"),
    ("run",),
    ("study", "ensemble", "interop", "bench"),
    ("report",),
    ("cli",),
    ("__main__",),
)
ARCHITECTURES = ("bert", "deberta", "gpt2", "mpnet", "t5")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported_by(module: str) -> set[str]:
    """The modules of jaxvalues that a module imports: anywhere in it, under TYPE_CHECKING and in functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name in MODULES}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import, which this test does not follow"
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= (names & MODULES.keys()) or ({node.module} & MODULES.keys())
    return found


GRAPH = {module: imported_by(module) for module in MODULES}


def package_of(module: str) -> str:
    """The first name below jaxvalues: a package, or a module at the root."""
    return module.split(".")[1] if "." in module else module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every path that comes back to where it began, found by depth-first search; none when there are no circles."""
    found, done = [], set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for target in sorted(graph[node]):
                visit(target, [*path, node])
            done.add(node)

    for node in graph:
        visit(node, [])
    return found


def test_no_modules_import_each_other_in_a_circle():
    assert circles(GRAPH) == []


def test_no_packages_import_each_other_in_a_circle():
    packages: dict[str, set[str]] = {}
    for module, targets in GRAPH.items():
        others = {package_of(target) for target in targets} - {package_of(module)}
        packages.setdefault(package_of(module), set()).update(others)
    packages = {package: targets - {"jaxvalues"} for package, targets in packages.items()}
    assert circles(packages) == []


def test_packages_import_from_their_own_floor_or_below():
    floor = {package: number for number, packages in enumerate(FLOORS) for package in packages}
    upward = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        if module != "jaxvalues"
        for target in targets
        if target != "jaxvalues" and floor[package_of(target)] > floor[package_of(module)]
    ]
    assert upward == []


def test_every_package_has_its_floor():
    packages = {package_of(module) for module in MODULES} - {"jaxvalues"}
    assert packages <= {package for packages in FLOORS for package in packages}


def test_no_architecture_imports_another():
    crossing = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        for own in ARCHITECTURES
        if module.startswith(f"jaxvalues.models.{own}.")
        and any(target.startswith(f"jaxvalues.models.{other}") for other in ARCHITECTURES if other != own)
    ]
    assert crossing == []


def test_shared_layers_know_no_architecture():
    known = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if module.startswith("jaxvalues.models.layers.") and not target.startswith("jaxvalues.models.layers")
    ]
    assert [line for line in known if not line.endswith("jaxvalues.errors")] == []


def test_the_root_holds_the_entry_points_alone():
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "errors.py", "py.typed"}


def test_no_file_is_too_long_to_read():
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
