"""Writing a pipeline in eight bits if it loses little."""

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

# The number of documents on which the errors of layers are measured.
SAMPLE = 64


@dataclass(frozen=True)
class Attempt:
    """A pipeline in eight bits except for some layers.

    kept (tuple[int, ...]): The layers in float32, sorted.
    comparison (Comparison): Its comparison with the exact pipeline.
    """

    kept: tuple[int, ...]
    comparison: Comparison


@dataclass(frozen=True)
class Quantized:
    """The result of a quantization.

    first (Attempt): The attempt that keeps the requested layers.
    written (bool): Whether its loss was small enough, so that it was written.
    errors (list[LayerError]): If not: the error of each layer, the largest first.
    others (list[Attempt]): If not: attempts that keep more and more of these layers, until the loss is small enough.
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
    """Write a pipeline with the adapter folded into eight-bit weights, unless a score loses more than is allowed.

    source (Path): The trained pipeline. It is run in float32, whatever it was trained in.
    files (Sequence[Path]): .spacy files of annotated documents that were not used for training.
    target (Path): A pipeline's folder, or a new one.
    max_loss (float): The maximum loss, in points, of any score that `training.score_weights` counts.
    kept (Collection[int]): Layers that stay in float32.
    tell (Callable): Called with each finished attempt.
    RAISES (SettingError, StorageError, BaseError, DataError): A setting is not allowed, or the pipeline, its base or
        the documents cannot be used.
    """
    if not (is_number(max_loss) and max_loss >= 0):
        raise SettingError(f"max_loss = {max_loss!r} is not allowed: it must be a number of points, 0 or above.")
    names = list(billm_blocks(load_config(source / CONFIG)))
    for name in names:
        if read_record(source / name)["store_base"] == INT8:
            raise StorageError(f"{source} is in eight bits already. Start from the trained pipeline.")
    check_kernel()
    with TemporaryFolder() as folder:
        # Done first, as it refuses bases that cannot be stored in eight bits.
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
    """The errors of the layers of all bases of a pipeline; of layers with the same number the larger error."""
    texts = [example.text for file in files for example in Corpus(file, limit=SAMPLE)(exact)][:SAMPLE]
    errors = [error for shim in shims_of(exact).values() for error in layer_errors(shim.backbone, texts)]
    largest: dict[int, LayerError] = {}
    for error in errors:
        if error.layer not in largest or largest[error.layer].error < error.error:
            largest[error.layer] = error
    return sorted(largest.values(), key=lambda error: -error.error)


def _ever_more(errors: Sequence[LayerError], kept: Collection[int]) -> Iterator[set[int]]:
    """Sets of layers to keep in addition: the worst, the two worst, the four worst …, but never all."""
    left = [error.layer for error in errors if error.layer not in kept]
    count = 1
    while count < len(left):
        yield {*kept, *left[:count]}
        count *= 2
