"""Writing a pipeline in eight bits, if it loses little."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Corpus, Example
from spacy.util import load_config, load_model

from ..backbone import INT8, read_record
from ..backbone.int8 import check_kernel
from ..backbone.int8_errors import LayerError, layer_errors
from ..errors import SettingError, StorageError
from ..files import TemporaryFolder
from ..pipeline.config_blocks import billm_blocks
from ..saving.pipelines import CONFIG
from ..saving.rewriting import rewrite
from ..values import is_number
from .compare import Comparison, compare, shims_of

# Documents that the errors of layers are measured on.
SAMPLE = 64


@dataclass(frozen=True)
class Attempt:
    """A pipeline in eight bits but for some layers.

    kept (tuple[int, ...]): Those in float32, sorted.
    comparison (Comparison): Of it with the exact pipeline.
    """

    kept: tuple[int, ...]
    comparison: Comparison


@dataclass(frozen=True)
class Quantized:
    """What came of it.

    first (Attempt): With the layers kept that were asked for.
    written (bool): Whether it has lost little enough to be written.
    errors (list[LayerError]): If not: of each layer, the largest first.
    others (list[Attempt]): If not: with ever more of these layers kept, until little enough is lost.
    """

    first: Attempt
    written: bool
    errors: list[LayerError]
    others: list[Attempt]


def quantize(
    source: Path,
    files: Sequence[Path],
    target: Path,
    *,
    max_loss: float = 0.5,
    kept: Collection[int] = (),
    tell: Callable[[Attempt], None] = lambda attempt: None,
) -> Quantized:
    """Write a pipeline with the adapter folded into weights of eight bits, unless a score loses more than is allowed.

    source (Path): The trained pipeline. It runs in float32, whatever it was trained in.
    files (Sequence[Path]): .spacy files of annotated documents, which it was not trained with.
    target (Path): A pipeline's folder, or a new one.
    max_loss (float): Points of any score that `training.score_weights` counts.
    kept (Collection[int]): Layers that stay in float32.
    tell (Callable): Is called with each attempt when it has run.
    RAISES (SettingError, StorageError, BaseError, DataError): Something cannot be used, see there.
    """
    if not (is_number(max_loss) and max_loss >= 0):
        raise SettingError(f"max_loss = {max_loss!r} is not allowed: it must be a number of points, 0 or above.")
    names = list(billm_blocks(load_config(source / CONFIG)))
    for name in names:
        if read_record(source / name)["store_base"] == INT8:
            raise StorageError(f"{source} is in eight bits already. Start from the pipeline as it was trained.")
    check_kernel()
    with TemporaryFolder() as folder:
        # Before anything is run: it refuses what cannot be had in eight bits.
        rewrite(source, folder / "0", INT8, kept=kept)
        plain: dict[str, Any] = {"model": {"quantization": None, "dtype": "float32", "device": None}}
        exact = load_model(source, config={"components": dict.fromkeys(names, plain)})

        def attempt(path: Path, kept: Collection[int]) -> Attempt:
            done = Attempt(tuple(sorted(kept)), _compared(exact, load_model(path), files))
            tell(done)
            return done

        first = attempt(folder / "0", kept)
        if first.comparison.loss <= max_loss:
            rewrite(folder / "0", target)
            return Quantized(first, True, [], [])
        errors = _errors(exact, files)
        others: list[Attempt] = []
        for count, more in enumerate(_ever_more(errors, kept), 1):
            rewrite(source, folder / str(count), INT8, kept=more)
            others.append(attempt(folder / str(count), more))
            if others[-1].comparison.loss <= max_loss:
                break
    return Quantized(first, False, errors, others)


def _compared(exact: Language, rounded: Language, files: Sequence[Path]) -> Comparison:
    pairs: list[tuple[Example, Example]] = []
    for file in files:
        pairs += zip(Corpus(file)(exact), Corpus(file)(rounded), strict=True)
    return compare(exact, rounded, pairs)


def _errors(exact: Language, files: Sequence[Path]) -> list[LayerError]:
    """Of all bases of a pipeline: of layers with the same number the larger error counts."""
    texts = [example.text for file in files for example in Corpus(file, limit=SAMPLE)(exact)][:SAMPLE]
    found = [error for shim in shims_of(exact).values() for error in layer_errors(shim.backbone, texts)]
    largest: dict[int, LayerError] = {}
    for error in found:
        if error.layer not in largest or largest[error.layer].error < error.error:
            largest[error.layer] = error
    return sorted(largest.values(), key=lambda error: -error.error)


def _ever_more(errors: Sequence[LayerError], kept: Collection[int]) -> Iterator[set[int]]:
    """With the worst layer, the two worst, the four worst … kept as well; never all."""
    left = [error.layer for error in errors if error.layer not in kept]
    count = 1
    while count < len(left):
        yield {*kept, *left[:count]}
        count *= 2
