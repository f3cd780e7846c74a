"""What the documentation names exists: commands and their options, registered functions, files and headings."""

import argparse
import ast
import importlib
import inspect
import re
import sys
from importlib.metadata import entry_points

import corpora  # noqa: F401  registers the commands
import pytest
import srsly
import typer
from fences import PAGES, ROOT, commands, commands_in_sentences, fences
from spacy import registry
from spacy.cli._util import app
from thinc.api import Config

from spacy_lsbillm.annotation.workers import PRELOADED
from spacy_lsbillm.search.strategies import STRATEGIES
from spacy_lsbillm.training.config import KNOWN

pytestmark = pytest.mark.any_stack

OPTION = re.compile(r"`(--[a-z][a-z-]*)")
ROW = re.compile(r"^\| (`--[^|]*) \|(.*)\|$", re.MULTILINE)
# The command whose options the tables of a page describe, if their heading does not begin with a command.
COMMAND_OF = {
    "confidence.md": "calibrate",
    "distilling.md": "distill",
    "fit-your-machine.md": "fit",
    "search.md": "search",
    "serving.md": "serve",
    "heads.md": "convert",
}
# What is registered and not a head.
ELSEWHERE = ("spacy-lsbillm.BiLLMModel.v1", "spacy-lsbillm.Tok2VecBiLLM.v1", "billm_transformer")
GROUP = typer.main.get_command(app)
LSBILLM = GROUP.commands["lsbillm"].commands
FENCES = fences()


def sections():
    """The page, the heading and the text below it, for every section of every page."""
    for path in PAGES:
        found = re.split(r"^#+ (.*)$", path.read_text(encoding="utf8"), flags=re.MULTILINE)
        for heading, text in zip(found[1::2], found[2::2], strict=True):
            yield path.name, heading, text


def options(command):
    return {
        option: parameter for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]
    }


def tables():
    """The command, an option and the rest of its row, for every table of options."""
    for page, heading, text in sections():
        for names, meaning in ROW.findall(text):
            command = heading.partition(":")[0] if heading.partition(":")[0] in LSBILLM else COMMAND_OF.get(page)
            for name in OPTION.findall(names):
                yield page, "predict-mask" if name == "--predictor" else command, name, meaning


def test_the_tables_describe_options_that_the_commands_have():
    rows = list(tables())
    assert len(rows) > 50
    for page, command, name, meaning in rows:
        assert command in LSBILLM, f"{page}: which command's option is {name}?"
        assert name in options(LSBILLM[command]) or "paths" in name, f"{page}: {command} has no {name}"
        default = re.search(r"default `?([\w.,/-]+)`?[);]|^ `?([\d.]+)`? \|", meaning)
        if default and name != "--unmask-warmup":
            shown, held = default[1] or default[2], options(LSBILLM[command])[name].default
            assert shown == f"{getattr(held, 'value', held)}".removesuffix(".0"), (
                f"{page}: {command} {name} is {held} by default"
            )


@pytest.mark.parametrize("name", sorted(LSBILLM))
def test_the_docs_name_every_option(name):
    texts = {path.name: path.read_text(encoding="utf8") for path in PAGES}
    # The page that has all commands counts only with the section of this one.
    parts = re.split(r"^## ", texts.pop("commands.md"), flags=re.MULTILINE)
    own = [part for part in parts if name in part.partition("\n")[0].partition(":")[0].split(", ")]
    own = own or [part for part in parts if re.search(rf"lsbillm {name}\b|`{name}`", part)]
    about = "\n".join(own + [text for text in texts.values() if re.search(rf"lsbillm {name}\b|`{name}\b", text)])
    assert about, f"no page shows {name}"
    named = set(re.findall(r"--[a-z][a-z-]*", about))
    for parameter in LSBILLM[name].params:
        names = {option for option in [*parameter.opts, *parameter.secondary_opts] if option.startswith("--")}
        if parameter.param_type_name == "option":
            assert names & named, f"no page about {name} says what {sorted(names)} does"


def test_the_pages_list_every_component_and_architecture():
    pages = {path.name: path.read_text(encoding="utf8") for path in PAGES}
    row = re.search(r"^\| `--pipeline` .*", pages["commands.md"], re.MULTILINE)[0]
    missing = [name for name in KNOWN if f"`{name}`" not in row]
    assert not missing, f"add {missing} to --pipeline in docs/commands.md"
    for group, page, what in (
        ("architectures", "api.md", "{1}"),
        ("architectures", "heads.md", "{0}"),
        ("factories", "heads.md", "{0}"),
    ):
        for point in entry_points(group=f"spacy_{group}"):
            if point.value.startswith("spacy_lsbillm.") and point.name not in ELSEWHERE:
                wanted = what.format(point.name.removeprefix("spacy-lsbillm."), point.attr)
                assert wanted in pages[page], f"{point.name}: write of {wanted} in docs/{page}"


def test_the_api_lists_what_is_registered():
    page = page_of("api.md")
    for group in ("spacy_readers", "spacy_span_getters", "spacy_callbacks", "spacy_scorers", "thinc_layers"):
        for point in entry_points(group=group):
            if point.module.startswith("spacy_lsbillm."):
                assert f"::: {point.module}.{point.attr}\n" in page, f"add {point.name} to docs/api.md"


def test_workers_import_every_component_before_they_are_forked():
    factories = [point.module for point in entry_points(group="spacy_factories")]
    missing = {module for module in factories if module.startswith("spacy_lsbillm.")} - {*PRELOADED}
    assert not missing, f"add {missing} to PRELOADED in annotation/workers.py"


def test_every_strategy_is_described():
    table = re.search(r"^\| `--strategy` \|(?:.*\n)+?\n", page_of("search.md"), re.MULTILINE)[0]
    described = options(LSBILLM["search"])["--strategy"].help
    for name in STRATEGIES:
        assert f"{name}: " in described, f"describe {name} in the help of --strategy, cli/search.py"
        assert f"| `{name}`" in table, f"describe {name} in the table in docs/search.md"


def test_the_numbers_of_families_are_those_of_the_list():
    counts = re.search(r"^(\d+ of \d+) on transformers 4\.53, (\d+ of \d+)", page_of("families.md"), re.MULTILINE)
    for page in (page_of("choosing-a-base.md"), (ROOT / "README.md").read_text(encoding="utf8")):
        assert re.search(rf"{counts[2]}\b.*on transformers 5,\s*{counts[1]} on", page), counts.groups()


def page_of(name):
    return (ROOT / "docs" / name).read_text(encoding="utf8")


def check_line(page, command, arguments, whole):
    """Parse arguments as the command would. (Versions of typer differ in the classes of their errors.)"""
    where = f"{page}: {' '.join(arguments)}"
    for word in arguments:
        name = word.partition("=")[0]
        # Options with dots are settings of a config.
        assert not name.startswith("--") or "." in name or name in options(command), f"{where}: no option {name}"
    try:
        command.make_context("", list(arguments))
    except Exception as error:
        # Files that a page mentions need not exist, and a sentence may name a command without its arguments.
        absent = "does not exist" in str(error)
        assert absent or (not whole and type(error).__name__ == "MissingParameter"), f"{where}: {error}"


def command_of(line):
    """The command in a line, and its own arguments."""
    found, rest = GROUP, line[line.index("spacy") + 1 :]
    while hasattr(found, "commands"):
        assert rest and rest[0] in found.commands, f"there is no command {' '.join(line)}"
        found, rest = found.commands[rest[0]], rest[1:]
    return found, rest


def project_run(arguments):
    project = srsly.read_yaml(ROOT / "project.yml")
    known = {*project["workflows"], *(command["name"] for command in project["commands"])}
    assert arguments[0] in known, f"project.yml has no {arguments[0]}"
    for word in arguments[1:]:
        assert not word.startswith("--") or word.removeprefix("--vars.") in project["vars"], (
            f"project.yml has no {word}"
        )


def test_every_command_line_can_be_read():
    found = [(True, *line) for line in commands(FENCES)] + [(False, *line) for line in commands_in_sentences()]
    lines = [line for line in found if "spacy" in line[2]]
    assert len(lines) > 90
    for whole, page, line in lines:
        command, arguments = command_of(line)
        if line[2:5] == ["spacy", "project", "run"]:
            project_run(line[5:])
        else:
            check_line(page, command, arguments, whole)


class Read(Exception):
    pass


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page, line in commands(FENCES) if any(re.match(r"benchmarks\.|scripts/", word) for word in line)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60],
)
def test_every_line_of_a_benchmark_can_be_read(page, line, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    place = next(i for i, word in enumerate(line) if re.match(r"benchmarks\.|scripts/", word))
    name = line[place]
    if name.startswith("scripts/"):
        assert (ROOT / name).is_file()
        return
    folder = ROOT / name.replace(".", "/")
    module = importlib.import_module(f"{name}.__main__" if folder.is_dir() else name)
    parse = argparse.ArgumentParser.parse_args

    def read(self, *arguments, **settings):
        parse(self, *arguments, **settings)
        raise Read

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read)
    monkeypatch.setattr(sys, "argv", [name, *line[place + 1 :]])
    with pytest.raises(Read):
        module.main()


@pytest.mark.parametrize("page", sorted({fence.page for fence in FENCES if fence.language == "ini"}))
def test_blocks_of_config_name_what_is_registered(page):
    for fence in FENCES:
        if fence.page == page and fence.language == "ini":
            for name, block in Config().from_str(complete(fence.text), interpolate=False).items():
                check_block(page, name, block)


def complete(text):
    """A config block with the sections that it leaves out but that are needed to parse it."""
    sections = re.findall(r"^\[(.*)\]$", text, re.MULTILINE)
    above = {".".join(section.split(".")[:i]) for section in sections for i in range(1, section.count(".") + 1)}
    return "".join(f"[{section}]\n" for section in sorted(above - set(sections))) + text


def check_block(page, name, block):
    if not isinstance(block, dict):
        return
    for key, function in block.items():
        if key.startswith("@"):
            made = getattr(registry, key[1:]).get(function)
            unknown = block.keys() - inspect.signature(made).parameters.keys() - {key}
            assert not unknown, f"{page}: [{name}] {function} has no {unknown}"
        check_block(page, f"{name}.{key}", function)


def test_messages_name_no_page_of_the_repository():
    """The wheel has no docs/ folder."""
    for path in (ROOT / "spacy_lsbillm").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        help_texts = {
            id(function.body[0].value)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name.endswith("_cli")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                shown = id(node) not in docstrings or id(node) in help_texts
                assert not shown or "docs/" not in node.value, f"{path.name}, line {node.lineno}: {node.value!r}"


# The target and the anchor of a link.
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)")
LINKED = [*PAGES, *ROOT.glob("*.md"), *(ROOT / "assets").glob("*/README.md"), *(ROOT / "benchmarks").glob("*.md")]


def anchors(path):
    """The anchors of a page's headings, on the site and on code hosts."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf8"), flags=re.MULTILINE | re.DOTALL)
    names = [
        re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    ]
    return {re.sub(r"[\s-]+", "-", name) for name in names} | {re.sub(r"\s", "-", name) for name in names}


@pytest.mark.parametrize("page", sorted({path.relative_to(ROOT).as_posix() for path in LINKED}))
def test_links_within_the_repository_lead_somewhere(page):
    for target, anchor in LINK.findall((ROOT / page).read_text(encoding="utf8")):
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: there is no {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page}: {target} has no heading {anchor}"


@pytest.mark.parametrize(
    ("figure", "folder"), [("tasks", "tasks/1000-examples-4-epochs-500-dev"), ("depth", "depth/*")]
)
def test_figures_are_those_of_the_results(figure, folder):
    [plot] = (ROOT / "benchmarks" / "results").glob(f"{folder}.plot.svg")
    shown = (ROOT / "docs" / "images" / f"{figure}.svg").read_bytes()
    assert shown == plot.read_bytes(), f"copy {plot.name} to docs/images/{figure}.svg"
