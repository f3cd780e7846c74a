"""Build the source distribution and the wheel, check them, and train and run a pipeline from the wheel alone.

    python -m pip install build twine
    python scripts/check_release.py [--output dist]

The wheel is built from the source distribution and installed into a new environment, which finds third-party libraries
by path and nothing of this repository. There, spaCy's commands make a config, train a few steps on the embedded base,
evaluate, and load what was saved. Only then are both files copied into the output folder.
"""

import argparse
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from fresh_environment import REPOSITORY, build_distributions, make_environment, run

STEPS = 5
LOAD = """
import sys
from pathlib import Path

import spacy
import spacy_lsbillm

assert Path(sys.prefix).resolve() in Path(spacy_lsbillm.__file__).resolve().parents, spacy_lsbillm.__file__
doc = spacy.load(sys.argv[1])("book a table for two at an italian place in boston tomorrow night")
print("loaded and run, with classes", ", ".join(sorted(doc.cats)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="folder for the files (default: dist)")
    output = parser.parse_args().output
    missing = [name for name in ("build", "twine") if find_spec(name) is None]
    if missing:
        sys.exit(f"This needs {' and '.join(missing)}: python -m pip install {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        print("Building the source distribution, and the wheel from it", flush=True)
        files = build_distributions(place / "dist")
        run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=place)
        print("Training from the wheel, in a new environment", flush=True)
        python = make_environment(place, files[1])
        for folder in ("base", "snips"):
            shutil.copytree(REPOSITORY / "assets" / folder, place / folder)
        shutil.copy(REPOSITORY / "scripts" / "prepare.py", place)
        spacy = (python, "-W", "ignore", "-m", "spacy")
        run(python, "-W", "ignore", "prepare.py", "snips", "corpus", cwd=place, quiet=True)
        config = ("lsbillm", "init-config", "my.cfg", "--pipeline", "ner,textcat", "--base", "base")
        run(*spacy, *config, cwd=place, quiet=True)
        paths = ("--paths.train", "corpus/train.spacy", "--paths.dev", "corpus/dev.spacy")
        steps = ("--training.max_steps", str(STEPS), "--training.eval_frequency", str(STEPS))
        run(*spacy, "train", "my.cfg", "--output", "training", *paths, *steps, cwd=place, quiet=True)
        run(*spacy, "evaluate", "training/model-last", "corpus/test.spacy", cwd=place, quiet=True)
        run(python, "-W", "ignore", "-c", LOAD, "training/model-last", cwd=place)
        output.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, output)
    print(f"{', '.join(path.name for path in files)} are in {output}")


if __name__ == "__main__":
    main()
