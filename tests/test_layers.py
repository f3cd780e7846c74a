"""The layers of the package: nothing imports upwards, or in a circle."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from places import REPOSITORY

pytestmark = pytest.mark.any_stack

PACKAGE = "spacy_lsbillm"
# What every row may import: the version, and the package itself for its folder.
FREE = {"about", ""}


def listing():
    """The lines of the listing in CONTRIBUTING.md, from the ground up."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf8")
    return re.search(rf"^{PACKAGE}/\n(.*?)^\S", text, re.DOTALL | re.MULTILINE)[1].splitlines()


def rooms(lines=None):
    """The names in lines of the listing; by default in all of it."""
    columns = [re.split(r"\s{2,}", line.strip())[0] for line in (listing() if lines is None else lines)]
    return [re.sub(r"/$|\.py$", "", name) for column in columns for name in column.split(", ")]


def imports_of(path):
    """The modules of the package that a module imports, and whether each is imported as soon as the module is."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    folder = path.relative_to(REPOSITORY).parent.parts
    at_once = set(statements(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            around = folder[: len(folder) - node.level + 1] if node.level else ()
            module = (*around, *(node.module or "").split(".")) if node.module else around
            for name in node.names if module[0] == PACKAGE else ():
                inside = REPOSITORY.joinpath(*module, f"{name.name}.py").is_file()
                yield ".".join((*module, name.name) if inside else module), node in at_once


def statements(block):
    """The statements that run when a module is imported."""
    for node in block.body:
        yield node
        if isinstance(node, ast.Try):
            yield from statements(node)
            for handler in node.handlers:
                yield from statements(handler)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from statements(node)


def modules():
    for path in sorted((REPOSITORY / PACKAGE).rglob("*.py")):
        names = path.relative_to(REPOSITORY).with_suffix("").parts
        yield ".".join(names[:-1] if names[-1] == "__init__" else names), path


def room(module):
    return ([*module.split("."), ""])[1]


def test_the_listing_names_every_room():
    assert sorted(rooms()) == sorted({room(module) for module, _ in modules()} - FREE)


def test_no_module_imports_upwards():
    place = {name: number for number, name in enumerate(rooms())}
    upwards = [
        f"{module} imports {imported}"
        for module, path in modules()
        for imported, _ in imports_of(path)
        if not FREE & {room(module), room(imported)} and place[room(imported)] > place[room(module)]
    ]
    assert not upwards


def test_no_modules_import_each_other():
    """But for the commands, which cli imports so that they register themselves with its app."""
    graph = {
        module: {imported for imported, at_once in imports_of(path) if at_once and imported != f"{PACKAGE}.cli"}
        for module, path in modules()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.slow
def test_what_needs_no_spacy_is_imported_without_it():
    """Every module of the rooms that the listing marks as such."""
    free = rooms([line for line in listing() if line.endswith("no spaCy")])
    assert "backbone" in free
    names = [module for module, _ in modules() if room(module) in free]
    program = (
        "import sys, importlib\n"
        "sys.modules |= dict.fromkeys(['spacy', 'spacy_transformers', 'thinc', 'typer'])\n"
        f"for name in {names}: importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
