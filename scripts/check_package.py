"""Check that a packaged pipeline works where it is installed, not only where it was trained.

    python scripts/check_package.py packages/en_snips-0.1.0-py3-none-any.whl
    python scripts/check_package.py packages/en_snips_llm-0.1.0-py3-none-any.whl --base models/smollm2

Its wheel and a new wheel of spacy-lsbillm are installed without their dependencies into a new environment. That
environment finds third-party libraries by path, and nothing of this repository. A program in another folder loads the
pipeline there with spacy.load and labels a few texts. A pipeline that does not contain its base is first loaded without
it, to check that the message says how to get the base.
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

from fresh_environment import REPOSITORY, build_distributions, make_environment, run

PROGRAM = """
import sys
from pathlib import Path

import spacy
import spacy_lsbillm

package, repository, base_at = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
environment = Path(sys.prefix).resolve()
nlp = spacy.load(package)
for what, place in (("spacy_lsbillm", spacy_lsbillm.__file__), (package, str(nlp.path))):
    assert environment in Path(place).resolve().parents, f"{what} comes from {place}, not from {environment}"
base = nlp.get_pipe("transformer").model.shims[0].backbone.folder
if base_at:
    assert Path(base).resolve() == Path(base_at[0]), f"the base comes from {base}, not from {base_at[0]}"
else:
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


WITHOUT_BASE = """
import sys

import spacy

try:
    spacy.load(sys.argv[1])
except ValueError as error:
    assert "import-gguf" in str(error), f"the message does not say how to get the base: {error}"
    print(f"Without its base: {error}")
else:
    sys.exit("the pipeline loads although its base is missing")
"""


def named_base(wheel: Path) -> str:
    """The name of the base in a packaged pipeline."""
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/transformer/billm.json"))
        return str(json.loads(archive.read(record))["base"]["name"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of a packaged pipeline")
    parser.add_argument("--base", type=Path, help="the folder of its base, if the package does not contain it")
    args = parser.parse_args()
    wheel = args.wheel.resolve()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        print("Building the wheel of spacy-lsbillm", flush=True)
        _, plugin = build_distributions(place / "dist")
        print("Installing both wheels into a new environment", flush=True)
        python = make_environment(place, plugin, wheel)
        (place / "program.py").write_text(PROGRAM, encoding="utf8")
        package = wheel.name.partition("-")[0]
        program = (python, "-I", "-W", "ignore", place / "program.py", package)
        if args.base is None:
            run(*program, REPOSITORY, cwd=place, HF_HUB_OFFLINE="1")
        else:
            (place / "without.py").write_text(WITHOUT_BASE, encoding="utf8")
            run(python, "-I", "-W", "ignore", place / "without.py", package, cwd=place, HF_HUB_OFFLINE="1")
            base = args.base.resolve()
            bases = place / "bases.json"
            bases.write_text(json.dumps({named_base(wheel): str(base)}), encoding="utf8")
            run(*program, REPOSITORY, base, cwd=place, HF_HUB_OFFLINE="1", SPACY_LSBILLM_BASES=str(bases))
    print(f"{wheel.name} works on its own.")


if __name__ == "__main__":
    main()
