"""The order of the house: who imports whom, what loads when, what is documented."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "errors": 0,
    "builtin": 1,
    "fingerprint": 1,
    "unicode": 0,
    "study": 1,
    "tables": 1,
    "concepts": 2,
    "corpus": 2,
    "judging": 2,
    "language_model": 2,
    "reading": 3,
    "sparse_autoencoder": 3,
    "contexts": 4,
    "diagnosis": 4,
    "explaining": 4,
    "generating": 4,
    "ranking": 4,
    "alignment": 5,
    "explorer": 5,
    "lab": 6,
    "pipeline": 6,
    "cli": 7,
}
HEAVY = ("torch", "transformers", "transformer_lens", "sae_lens", "openai", "pandas", "pyarrow")
# When a command only says what it does, these are not needed either.
HEAVY_FOR_START = (*HEAVY, "numpy", "scipy", "matplotlib", "datasets")


def source_files() -> dict[str, Path]:
    """Every module by its installed name."""
    found = {}
    for path in sorted([*(ROOT / "safesail").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "safesail" else ("safesail", *parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


SOURCES = source_files()


def imports(name: str, tree: ast.AST) -> list[str]:
    """Full names of the modules that a syntax tree imports, relative ones resolved."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def module_level(tree: ast.Module) -> ast.Module:
    """What runs on import: without functions' bodies and what only type checkers see."""

    class Pruned(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if checking else self.generic_visit(node)

    return Pruned().visit(tree)


def place_of(module: str) -> str | None:
    """The place of the house that a module belongs to; None outside it or for the package."""
    parts = module.split(".")
    if parts[0] != "safesail" or len(parts) == 1 or parts[1] in ("prompts", "data"):
        return None
    return parts[1] if parts[1] in FLOORS else None


def test_every_place_has_a_floor() -> None:
    places = {name.split(".")[1] for name in SOURCES if "." in name}
    assert places == set(FLOORS)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "safesail"])
def test_imports_go_to_lower_floors_only(name: str) -> None:
    own = name.split(".")[1]
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    for imported in imports(name, tree):
        place = place_of(imported)
        if place is not None and place != own:
            assert FLOORS[place] < FLOORS[own], f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("safesail.cli")])
def test_commands_import_siblings_relatively_and_nothing_heavy(name: str) -> None:
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith(("safesail.cli", "cli")), node.module
    tops = {found.split(".")[0] for found in imports(name, module_level(tree))}
    assert not tops & set(HEAVY_FOR_START)


@pytest.mark.parametrize("name", [*SOURCES])
def test_sae_lens_and_transformer_lens_load_inside_functions(name: str) -> None:
    tree = module_level(ast.parse(SOURCES[name].read_text(encoding="utf-8")))
    tops = {found.split(".")[0] for found in imports(name, tree)}
    assert not tops & {"sae_lens", "transformer_lens", "datasets", "openai"} or name.startswith(
        "safesail.judging"
    )


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after some code."""
    report = "import sys; print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"try:\n {code}\nfinally:\n {report}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import safesail; safesail.SafesailError; dir(safesail)",
        "import sys; sys.argv = ['safesail', '--help']; import safesail.cli; safesail.cli.main()",
        "import sys; sys.argv = ['safesail', 'explain', '--help']; import safesail.cli as c; "
        "c.main()",
    ],
)
def test_nothing_heavy_is_loaded_at_the_start(code: str) -> None:
    loaded = loaded_by(code)
    assert "safesail" in loaded
    assert not loaded & set(HEAVY_FOR_START)


def test_configuration_loads_without_models() -> None:
    loaded = loaded_by("import safesail; safesail.Study")
    assert "pydantic" in loaded
    assert not loaded & set(HEAVY)


def test_a_ranking_is_read_without_models() -> None:
    loaded = loaded_by("from safesail.ranking import Ranking")
    assert "scipy" in loaded
    assert not loaded & {"torch", "transformers", "sklearn", "pandas", "matplotlib"}


PUBLIC = [
    name
    for name, path in SOURCES.items()
    if "__all__" in path.read_text(encoding="utf-8") and "._" not in name
]


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_exported_exists_and_is_documented(name: str) -> None:
    module = import_module(name)
    assert module.__all__ == sorted(module.__all__, key=_ruff_order)
    for exported in module.__all__:
        value = getattr(module, exported)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{exported} has no docstring"


def _ruff_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_unknown_names_of_the_package_are_attribute_errors() -> None:
    import safesail

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        safesail.nonsense  # noqa: B018
    assert set(safesail.__all__) < set(dir(safesail))
    assert safesail.__version__


@pytest.mark.proof
def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    """Build, install beside nothing, and use from an empty folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    quiet = ["--no-deps", "--no-index"]
    # setuptools leaves a build folder and egg-info where it builds: not in this checkout.
    source = tmp_path / "source"
    tracked = ("safesail", "cli", "prompts", "data", "pyproject.toml", "setup.py", "LICENSE")
    source.mkdir()
    for name in (*tracked, "README.md"):
        if (ROOT / name).exists():
            subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    if not (source / "README.md").exists():
        (source / "README.md").write_text("")
    wheels, target, empty = tmp_path / "wheels", tmp_path / "target", tmp_path / "empty"
    build = [*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("safesail-*.whl")
    subprocess.run([*pip, "install", *quiet, "--target", str(target), str(wheel)], check=True)
    empty.mkdir()
    modules = ", ".join(repr(name) for name in SOURCES if not name.endswith("__main__"))
    data = sorted(str(p.relative_to(ROOT / "data")) for p in (ROOT / "data").rglob("*.*"))
    prompts = sorted(path.name for path in (ROOT / "prompts").glob("*.j2"))
    assert "concepts/starter.jsonl" in data
    assert "lab/model/model.safetensors" in data
    code = f"""
import importlib, pathlib, safesail
from importlib.resources import files
assert pathlib.Path(safesail.__file__).is_relative_to({str(target)!r}), safesail.__file__
for name in [{modules}]:
    importlib.import_module(name)
for name in {[name for name in data if "__pycache__" not in name]!r}:
    assert (files("safesail.data") / name).is_file(), name
for name in {prompts!r}:
    assert (files("safesail.prompts") / name).is_file(), name
assert (files("safesail") / "py.typed").is_file()
assert (files("safesail.explorer") / "static" / "explorer.css").is_file()
assert (files("safesail.explorer") / "templates" / "report.html").is_file()
"""
    # -S keeps out site-packages with its editable install; the libraries there are put back.
    libraries = sysconfig.get_paths()["purelib"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), libraries])}
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=empty, env=environment)
