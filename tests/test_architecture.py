"""The shape of the house, read from its sources: who imports whom, who reads the environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "job").rglob("*.py"))

# Room -> the rooms it may import at run time, `errors` apart, which all may. A room is a module
# or a folder directly below job/. What is not listed here imports nothing of ours.
MAY_IMPORT: dict[str, set[str]] = {
    "cli": {
        *{"check", "supervisor", "spec", "credentials", "redact", "events", "report"},
        *{"workplace", "receipt", "runpod", "sources"},
    },
    "runpod": {
        *{"child", "memory", "plan", "preflight", "settings", "sources", "space", "spec", "store"},
        *{"credentials", "events", "redact"},
    },
    "check": {
        *{"child", "inputs", "preflight"},
        *{"cards", "credentials", "memory", "report", "spec", "store", "trackers"},
    },
    "supervisor": {
        *{"attempts", "child", "children", "mirror", "preflight", "publish", "record"},
        *{"budget", "clock", "log_mirror", "materials"},
        *{"signals", "stages", "trackers", "webhook", "workplace"},
        *{"checkpoints", "credentials", "events", "sources", "spec", "store"},
    },
    "children": {
        *{"child", "clock", "mirror", "plan", "record", "signals", "smaller", "stages"},
        "workplace",
        *{"checkpoints", "events", "memory", "spec"},
    },
    "materials": {
        *{"children", "clock", "inputs", "preflight", "record", "workplace"},
        *{"credentials", "events", "sources", "spec"},
    },
    "log_mirror": {"events"},
    "mirror": {"checkpoints", "events", "spec", "store"},
    "inputs": {"credentials", "events", "preflight", "sources", "spec"},
    "stages": {"checkpoints", "hashing", "record"},
    "checkpoints": {"disk", "hashing"},
    "attempts": {"disk"},
    "events": {"disk"},
    "webhook": {"events", "sources"},
    "trackers": {"channel", "child", "disk", "events"},
    "child": {"events"},
    "preflight": {
        *{"credentials", "memory", "plan", "settings", "sources", "space", "spec", "store"},
    },
    "clock": {"budget", "disk", "spec"},
    "space": {"memory", "spec"},
    "data": {"channel", "disk", "hashing", "spec"},
    "publish": {
        *{"events", "hashing", "receipt", "record", "report", "spec", "stages", "store"},
        "checkpoints",
    },
    "record": {"build", "events", "spec"},
    "workplace": {"spec"},
    "train": {"budget", "channel", "checkpoints", "data", "languages", "pace", "spec"},
    "report": {"languages", "memory"},
    "cards": {"memory", "plan", "settings", "spec"},
    "plan": {"architectures", "library_rows", "memory", "packing", "settings", "space", "spec"},
    "library_rows": {"memory", "settings", "spec"},
    "settings": {"memory"},
    "memory": {"spec"},
    "packing": {"memory", "spec"},
    "smaller": {"plan", "settings"},
    "sources": {"credentials", "hashing"},
    "store": {"checkpoints", "disk", "hashing", "receipt"},
    "receipt": {"hashing", "store"},  # store: opened by `verify_uri`, when it is called
    "spec": {"credentials", "redact"},
}
# Library -> the rooms that may import it.
LIBRARIES: dict[str, set[str]] = {
    "torch": {"train"},
    "unsloth": {"train"},
    "unsloth_zoo": {"train"},
    "trl": {"train"},
    "peft": {"train"},
    "accelerate": {"train"},
    "bitsandbytes": {"train"},
    "datasets": {"train"},
    "numpy": {"train", "data"},
    "pyarrow": {"data"},
    "boto3": {"sources", "store"},
    "botocore": {"sources", "store"},
    "huggingface_hub": {"sources", "store"},
    "httpx": {"runpod", "sources", "store", "webhook"},
    "matplotlib": {"report"},
    "py3langid": {"languages"},
    "rich": {"report"},
    "runpod": {"runpod"},
    **{library: {"trackers"} for library in ("wandb", "mlflow", "trackio", "tensorboardX")},
}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "job").parts[0].removesuffix(".py")


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from at_run_time(node)


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it: "job.spec", "torch.nn"."""
    for node in at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            if node.module == "job":
                yield from (f"job.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def rooms_imported(path: Path) -> set[str]:
    """The other rooms that a file imports."""
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("job.")}
    return ours - {room_of(path), "__version__"}


def test_the_reader_of_imports_sees_them():
    assert "cli" not in rooms_imported(ROOT / "job/cli.py")
    assert {"preflight", "child", "store"} <= rooms_imported(ROOT / "job/supervisor.py")
    assert "unsloth" in set(imports(ROOT / "job/train/__main__.py"))  # inside a function


def test_imports_point_one_way():
    found: dict[str, set[str]] = {}
    for path in FILES:
        found.setdefault(room_of(path), set()).update(rooms_imported(path) - {"errors"})
    found = {room: rooms for room, rooms in found.items() if rooms}
    assert found == MAY_IMPORT


def test_nobody_imports_the_command_line_or_the_trainer():
    for path in FILES:
        assert not {"cli", "train"} & rooms_imported(path), path


def test_the_rooms_form_no_circle():
    done: set[str] = set()

    def visit(room: str, above: tuple[str, ...]) -> None:
        assert room not in above, " -> ".join([*above, room])
        if room in done:
            return
        for lower in sorted(MAY_IMPORT.get(room, set())):
            if (room, lower) != ("receipt", "store"):  # inside a function, see MAY_IMPORT
                visit(lower, (*above, room))
        done.add(room)

    for room in MAY_IMPORT:
        visit(room, ())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_rooms(library):
    importers = {
        room_of(path) for path in FILES if library in {name.split(".")[0] for name in imports(path)}
    }
    assert importers <= LIBRARIES[library]


def test_only_the_edge_reads_the_environment():
    # A child process gets what concerns the process itself through variables of its own.
    allowed = {"train/__main__.py", "trackers/__main__.py", "channel.py"}
    for path in FILES:
        name = path.relative_to(ROOT / "job").as_posix()
        if name in allowed or name == "cli.py" or name.startswith("runpod/"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("environ", "environb", "getenv"), name
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {"environ", "getenv"} & {alias.name for alias in node.names}, name


def test_a_file_holds_one_idea():
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in [*FILES, ROOT / "entrypoint.py"]
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long


def undocumented(path: Path) -> Iterator[str]:
    """The module, public functions and public classes of a file that have no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body and ast.get_docstring(tree) is None:
        yield path.relative_to(ROOT).as_posix()
    for node in tree.body:
        public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        if public and ast.get_docstring(node) is None:
            yield f"{path.relative_to(ROOT).as_posix()}: {node.name}"


def test_every_public_thing_says_what_it_is():
    assert [name for path in FILES for name in undocumented(path)] == []
