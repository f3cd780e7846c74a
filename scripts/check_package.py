"""Check that a packaged pipeline works where it is installed, not only where it was trained.

    python scripts/check_package.py packages/en_snips-0.1.0-py3-none-any.whl

Its wheel and a fresh one of spacy-lsbillm go, without their dependencies, into an environment of their own. That
gets the third-party libraries by path, and nothing of this repository: a program run there from another folder loads
the pipeline with spacy.load and labels a few texts.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

PROGRAM = """
import sys
from pathlib import Path

import spacy
import spacy_lsbillm

package, repository = sys.argv[1], Path(sys.argv[2])
environment = Path(sys.prefix).resolve()
nlp = spacy.load(package)
for what, place in (("spacy_lsbillm", spacy_lsbillm.__file__), (package, str(nlp.path))):
    assert environment in Path(place).resolve().parents, f"{what} comes from {place}, not from {environment}"
base = nlp.get_pipe("transformer").model.shims[0].backbone.folder
assert environment in Path(base).resolve().parents, f"the base comes from {base}, not from the package"
assert not any(Path(p or ".").resolve() == repository for p in sys.path), f"{repository} is in reach: {sys.path}"

print("attention:", nlp.get_pipe("transformer").mask.words)
for doc in nlp.pipe([
    "book a table for two at an italian place in boston tomorrow night",
    "play some jazz by miles davis",
    "will it rain in paris this weekend",
]):
    intent = max(doc.cats, key=doc.cats.get)
    assert doc.ents, f"no slots found in {doc.text!r}"
    print(f"{doc.text}\\n    {intent} ({doc.cats[intent]:.2f}):", ", ".join(f"{e.text} [{e.label_}]" for e in doc.ents))
"""


def run(*command: str | Path, cwd: Path, quiet: bool = False, **variables: str) -> None:
    """Run a program and stop at the first failure; a quiet one shows its output only then."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=quiet, text=True)
    if done.returncode:
        sys.exit(f"{(done.stdout or '') + (done.stderr or '')}\nfailed: {' '.join(map(str, command))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of a packaged pipeline")
    wheel = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        print("Building the wheel of spacy-lsbillm", flush=True)
        run(sys.executable, "-m", "build", "--outdir", place / "dist", REPOSITORY, cwd=place, quiet=True)
        (plugin,) = (place / "dist").glob("*.whl")
        print("Installing both wheels into a new environment", flush=True)
        venv.create(place / "env", with_pip=False)
        inside = {"base": str(place / "env"), "platbase": str(place / "env")}
        python = Path(sysconfig.get_path("scripts", "venv", inside), "python")
        run(
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            plugin,
            wheel,
            cwd=place,
        )
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        target = Path(sysconfig.get_path("purelib", "venv", inside), "third_party.pth")
        target.write_text("\n".join(libraries) + "\n", encoding="utf8")
        (place / "program.py").write_text(PROGRAM, encoding="utf8")
        package = wheel.name.partition("-")[0]
        run(python, "-I", "-W", "ignore", place / "program.py", package, REPOSITORY, cwd=place, HF_HUB_OFFLINE="1")
    print(f"{wheel.name} works on its own.")


if __name__ == "__main__":
    main()
