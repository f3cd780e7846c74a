"""Damaged and hostile files: of saved pipelines, of bases, and of pre-training runs that are resumed."""

import contextlib
import gc
import io
import os
import random
import re
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import srsly
import torch
from spacy.language import Language

from spacy_lsbillm import errors
from spacy_lsbillm.backbone import seen_bases as known
from spacy_lsbillm.files.seal import SEAL, write_seal
from spacy_lsbillm.pretraining import PretrainingSettings, pretrain
from spacy_lsbillm.pretraining import run as pretraining_run
from spacy_lsbillm.pretraining.run import Places
from spacy_lsbillm.saving.verification import verify

from .bases import TEXTS, make_pipeline, write_base
from .damage import damage, files_of, remove, swap, write
from .documents import found_in, scores_of, vectors_of
from .part import Broken, Check, Part

OURS = tuple(one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ValueError))
# In bytes, beyond what is needed in any case.
MOST_MEMORY = 400 * 2**20
ADDRESS_SPACE = 4 * 2**30
STORED = ("reference", "copy", "merged")
# Components of this package, which must notice every change; the others are spaCy's.
COMPONENTS = ("transformer", "sequence_labeler", "spans")
FILE_NAME = re.compile(r"\w[\w.]*\.\w+")
CPU = torch.device("cpu")
RUN = {
    "tokenizer": {"vocab_size": 270, "every": 1},
    "model": {"layers": 1, "width": 16, "heads": 2, "key_value_heads": 1, "feed_forward": 16, "positions": 16},
    "training": {
        "tokens": 16 * 2 * 4,
        "batch": 2,
        "micro_batch": 2,
        "warmup_steps": 1,
        "checkpoint_every": 2,
        "precision": "float32",
    },
}


class Stopped(Exception):
    """A run is abandoned after its first checkpoint."""


@dataclass
class Stage:
    """The files that are damaged, and their results when intact.

    tried (Path): The folder in which files are damaged; they refer to each other by its paths.
    whole (Path): Intact copies.
    others (Path): Bases with other weights or another shape.
    mark (Path): A file that exists if code in a damaged file was run.
    expected (dict): The results of the intact files, by name.
    """

    tried: Path
    whole: Path
    others: Path
    mark: Path
    expected: dict[str, Any]

    def fresh(self, *names: str) -> None:
        """Restore these files."""
        shutil.rmtree(self.tried, ignore_errors=True)
        for name in names:
            # Hard links are enough, because files are damaged by replacing them.
            shutil.copytree(self.whole / name, self.tried / name, copy_function=os.link)


def output_of(nlp: Language) -> list[Any]:
    """A pipeline's predictions for some texts."""
    docs = list(nlp.pipe(TEXTS))
    return [(vectors_of(doc), found_in(doc), scores_of(doc)) for doc in docs]


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two pipelines predict the same."""
    for (vectors, found, scores), (vectors_2, found_2, scores_2) in zip(one, other, strict=True):
        if vectors.shape != vectors_2.shape or not np.allclose(vectors, vectors_2, rtol=1e-5, atol=1e-5):
            return False
        if found != found_2 or len(scores) != len(scores_2) or not np.allclose(scores, scores_2, atol=1e-4):
            return False
    return True


def make_stage(folder: Path) -> Stage:
    """Make all files and their results once."""
    tried, whole, others = (folder / name for name in ("tried", "whole", "others"))
    for path in (tried, whole, others):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    kind = "byte-level, start token"
    expected: dict[str, Any] = {}
    base = write_base(tried / "base", kind)
    write_base(others / "weights", kind, seed=1)
    write_base(others / "layers", kind, num_hidden_layers=3)
    write_base(others / "width", kind, hidden_size=64)
    for stored in STORED:
        mix = {"scalar_mix": "all"} if stored == "copy" else {}
        nlp = make_pipeline(base, store_base=stored, lora={"r": 4}, **mix)
        nlp.to_disk(tried / stored)
        expected[stored] = output_of(spacy.load(tried / stored))
    expected["message"] = output_of(spacy.load(tried / "reference"))
    expected["base"] = output_of(make_pipeline(base, lora=None))
    text = tried / "text.txt"
    text.write_text("\n\n".join(TEXTS * 8), encoding="utf8")
    (whole / "text.txt").write_bytes(text.read_bytes())
    (tried / "run").mkdir()
    with contextlib.suppress(Stopped):
        go_on(tried / "run", text, tried / "model", stop=True)
    shutil.copytree(tried / "run", whole / "run")
    go_on(tried / "run", text, tried / "model")
    expected["run"] = weights_of(tried / "model")
    for name in ("base", *STORED):
        shutil.copytree(tried / name, whole / name)
    return Stage(tried, whole, others, folder / "mark", expected)


def go_on(work: Path, text: Path, output: Path, stop: bool = False) -> None:
    """Run pre-training to its end, from its checkpoint if it has one.

    stop (bool): Stop after the first checkpoint.
    """
    save = pretraining_run.save_checkpoint

    def save_and_stop(*args: Any) -> None:
        save(*args)
        raise Stopped

    if stop:
        pretraining_run.save_checkpoint = save_and_stop
    try:
        settings = PretrainingSettings.read(RUN)
        pretrain(settings, Places([text], [text], output, work), CPU, resume=any(work.iterdir()))
    finally:
        pretraining_run.save_checkpoint = save


def weights_of(folder: Path) -> dict[str, bytes]:
    """The files of a finished run that must be reproduced."""
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "tokenizer.json", "config.json")}


@contextmanager
def open_corruptions(folder: Path) -> Iterator[Check]:
    """Prepare the cases, see `Part.open`."""
    with quiet():
        stage = make_stage(folder)
    before = resource.getrlimit(resource.RLIMIT_AS)
    # Without this limit, a case could take all the memory of the machine.
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + ADDRESS_SPACE, before[1]))

    def check(number: int, draw: random.Random) -> None:
        kind = draw.choices([pipeline, reference, base, message, run], weights=[40, 15, 20, 5, 20])[0]
        stage.mark.unlink(missing_ok=True)
        known._folders.clear()
        known._digests.clear()
        gc.collect()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The embedded base is found by a path in the repository, so that no case depends on the hub.
        with quiet():
            damage_done = kind(stage, draw)
        if stage.mark.exists():
            raise Broken(f"{damage_done}: code in the file was run")
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
        if more > MOST_MEMORY:
            raise Broken(f"{damage_done}: it took {more / 2**20:.0f} MiB")

    try:
        yield check
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def address_space() -> int:
    """The size of this process's address space, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize()


def use_damaged(
    stage: Stage, damage_done: str, do: Callable[[], Any], names: Sequence[str], *, anyhow: bool = False
) -> Any:
    """Use what was damaged.

    damage_done (str): A description of the damage.
    names (Sequence): Names of which one must occur in the message of a refusal.
    anyhow (bool): Accept any error, because other libraries read the file first.
    RETURNS (Any): The result; None if it was refused, or if there was a warning.
    RAISES (Broken): It was refused with another message than required.
    """
    # A file that was added may be named as well.
    names = [*names, *FILE_NAME.findall(damage_done)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = do()
        except (MemoryError, RecursionError) as error:
            raise Broken(f"{damage_done}: {type(error).__name__}: {error}") from error
        except OURS as error:
            if not any(name in str(error) for name in names):
                raise Broken(f"{damage_done}: the refusal does not name it: {error}") from error
            return None
        except Exception as error:
            if anyhow:
                return None
            raise Broken(f"{damage_done}: {type(error).__name__}: {error}") from error
        except BaseException as error:
            # A panic in Rust is not an `Exception`.
            if type(error).__name__ != "PanicException":
                raise
            raise Broken(f"{damage_done}: {type(error).__name__}: {error}") from error
    if any(name in str(one.message) for one in caught for name in names):
        return None
    return found


def pipeline(stage: Stage, draw: random.Random) -> str:
    """Damage a saved pipeline."""
    stored = draw.choice(STORED)
    stage.fresh("base", stored)
    folder = stage.tried / stored
    component = folder / draw.choice([*COMPONENTS, COMPONENTS[0]])
    anyhow = draw.random() < 0.15
    resealed = not anyhow and draw.random() < 0.2
    own = files_of(component)
    names: list[str]
    if anyhow:
        path = draw.choice([one for one in files_of(folder) if not set(one.parts) & set(COMPONENTS)])
        damage_done, names = damage(path, draw, stage.mark), [path.name]
        if path.is_char_device():
            # spaCy would read the device without end.
            remove(path)
    elif draw.random() < 0.1:
        damage_done = swap(own, draw)
        names = [path.name for path in own]
    elif draw.random() < 0.05:
        damage_done, names = escape(component, draw), [SEAL]
    else:
        path = draw.choice(own)
        damage_done, names = damage(path, draw, stage.mark), [path.name]
    if resealed and (component / SEAL).is_file():
        remove(component / SEAL)
        write_seal(component)
        damage_done, names = f"{damage_done}, sealed again", [component.name]
    damage_done = f"{stored}/{component.name}: {damage_done}"
    found = use_damaged(stage, damage_done, lambda: output_of(spacy.load(folder)), names, anyhow=anyhow)
    if found is not None and not anyhow and not resealed and not same(found, stage.expected[stored]):
        raise Broken(f"{damage_done}: it gives other results without an error")
    return damage_done


def escape(component: Path, draw: random.Random) -> str:
    """Make the list of files name one outside of its folder."""
    lines = (component / SEAL).read_text(encoding="utf8").splitlines()
    place = draw.randrange(len(lines))
    digest, _, name = lines[place].partition("  ")
    lines[place] = f"{digest}  {draw.choice(['../' * 9 + 'etc/passwd', '/etc/passwd', '/dev/zero', f'../{name}'])}"
    write(component / SEAL, ("\n".join(lines) + "\n").encode())
    return "the list of files names one outside"


def damaged_base(stage: Stage, draw: random.Random) -> tuple[str, list[str]]:
    """Damage the base.

    RETURNS (tuple): A description of the damage, and the names that a refusal may contain.
    """
    base = stage.tried / "base"
    # If several files do not match, a refusal may name the folder.
    names = [str(base)]
    how = draw.random()
    if how < 0.1:
        other = draw.choice(["weights", "layers", "width"])
        remove(base)
        shutil.copytree(stage.others / other, base, copy_function=os.link)
        return f"base: another one in its place ({other})", names
    if how < 0.15:
        other = draw.choice(["weights", "layers", "width"])
        name = draw.choice(["model.safetensors", "config.json"])
        write(base / name, (stage.others / other / name).read_bytes())
        return f"base: {name} of another one ({other})", [*names, name]
    if how < 0.25:
        outside = stage.others / "weights" / "model.safetensors"
        target = draw.choice([os.path.relpath(outside, base), str(outside), "../missing", "/dev/zero", "", "."])
        content = {"metadata": {}, "weight_map": {"model.norm.weight": target, "lm_head.weight": "model.safetensors"}}
        write(base / "model.safetensors.index.json", srsly.json_dumps(content).encode())
        return f"base: an index that names {target}", [*names, "model.safetensors.index.json"]
    if how < 0.3:
        damage_done = swap(files_of(base), draw)
        return f"base: {damage_done}", [*names, *(path.name for path in files_of(base))]
    path = draw.choice([base / "config.json", base / "model.safetensors", *files_of(base)])
    return f"base: {damage(path, draw, stage.mark)}", [*names, path.name]


def reference(stage: Stage, draw: random.Random) -> str:
    """Damage the base of a pipeline that stores it as a reference.

    Loading compares samples of its weights, `verify` compares all.
    """
    stage.fresh("base", "reference")
    damage_done, names = damaged_base(stage, draw)
    folder = stage.tried / "reference"
    found = use_damaged(stage, damage_done, lambda: output_of(spacy.load(folder)), names)
    if found is not None and not same(found, stage.expected["reference"]):
        problems = [one.problem for one in verify(folder) if one.problem]
        if not any(name in problem for problem in problems for name in names):
            raise Broken(f"{damage_done}: it gives other results without an error")
    return damage_done


def base(stage: Stage, draw: random.Random) -> str:
    """Damage a base for a new pipeline, which has no record of the original."""
    stage.fresh("base")
    damage_done, names = damaged_base(stage, draw)
    use_damaged(stage, damage_done, lambda: output_of(make_pipeline(stage.tried / "base", lora=None)), names)
    return damage_done


def message(stage: Stage, draw: random.Random) -> str:
    """Damage the transformer as bytes."""
    stage.fresh("base", "reference")
    nlp = spacy.load(stage.tried / "reference")
    transformer = nlp.get_pipe("transformer")
    parts = srsly.msgpack_loads(transformer.to_bytes())
    files = srsly.msgpack_loads(parts["model"])
    name = draw.choice(sorted(files))
    names = [Path(name).name]
    how = draw.choice(["flip", "name", "lose", "cut", "value"])
    if how == "flip":
        chunk = bytearray(files[name][0])
        place = draw.randrange(len(chunk))
        chunk[place] ^= 1 << draw.randrange(8)
        files[name] = [bytes(chunk)]
    elif how == "name":
        outside = draw.choice(
            [str(stage.mark), f"../{stage.mark.name}", "../" * 20 + str(stage.mark), "", ".", "a/../.."]
        )
        files[outside] = files.pop(name)
        names += [outside]
    elif how == "lose":
        del files[name]
    elif how == "value":
        files[name] = draw.choice([None, 1, "x", {}, [1], [None]])
    parts["model"] = srsly.msgpack_dumps(files)
    if how == "cut":
        parts["model"], names = parts["model"][: draw.randrange(len(parts["model"]))], ["message"]
    damage_done = f"message: {how} of {name}"

    def read() -> list[Any]:
        transformer.from_bytes(srsly.msgpack_dumps(parts))
        return output_of(nlp)

    found = use_damaged(stage, damage_done, read, [*names, "message"])
    if found is not None and not same(found, stage.expected["message"]):
        raise Broken(f"{damage_done}: it gives other results without an error")
    return damage_done


def run(stage: Stage, draw: random.Random) -> str:
    """Damage a pre-training run that was stopped."""
    stage.fresh("run")
    shutil.copy2(stage.whole / "text.txt", stage.tried / "text.txt")
    work, output = stage.tried / "run", stage.tried / "model"
    files = files_of(work)
    if draw.random() < 0.1:
        damage_done = swap(files, draw)
        names = [path.name for path in files]
    else:
        path = draw.choice([*files, work / "checkpoint.pt", work / "checkpoint.pt"])
        damage_done, names = damage(path, draw, stage.mark), [path.name]
    damage_done = f"run: {damage_done}"

    def finish() -> dict[str, bytes]:
        go_on(work, stage.tried / "text.txt", output)
        return weights_of(output)

    found = use_damaged(stage, damage_done, finish, [*names, str(work)])
    if found is not None and found != stage.expected["run"]:
        raise Broken(f"{damage_done}: it ends with another model without an error")
    return damage_done


PART = Part(
    "corruptions",
    1_000,
    "files of saved pipelines, bases and pre-training runs cut, lengthened, lost, swapped, linked elsewhere, one bit "
    "flipped, headers and settings changed, pickles and code put in, sealed again, another base under the same name",
    "refused with the name of the file or of its folder, or the same output; no code is run; at most 400 MiB more. "
    "Changes in a base between the sampled blocks are found by `verify`",
    open_corruptions,
)
