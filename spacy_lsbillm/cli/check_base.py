"""`python -m spacy lsbillm check-base`: test whether the causal mask of a base can be removed."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option
from wasabi import msg

from ..backbone.config_file import load_config
from ..backbone.location import TOKENIZER_FILES, resolve_folder
from ..backbone.matching import check_weights
from ..backbone.proof import Proof, prove
from ..backbone.skeleton import skeleton
from ..backbone.tokenizer import load_tokenizer
from ..backbone.variants import variant_of
from ..backbone.vocabulary import embedding_rows, pieces_beyond
from ..errors import BaseError
from . import app


@app.command("check-base")
def check_base_cli(
    name: Annotated[str, Argument(help="The base model: a Hugging Face folder or a hub id")],
    revision: Annotated[str | None, Option(help="Hub revision of the base")] = None,
) -> None:
    """Check a base model before you train with it, without reading or downloading its weights.

    Builds a small copy of the base from its config, with random weights and a few layers of each kind, and measures
    layer by layer: does unmasking let a piece attend to its right, does padding stay hidden, can short texts share a
    row, and can an adapter be attached, trained and folded in? For a local folder, the tokenizer and the names and
    shapes of the stored weights are checked as well. The exit status is 1 if the base cannot be used.

    Example: python -m spacy lsbillm check-base Qwen/Qwen2.5-0.5B
    """
    try:
        folder = resolve_folder(name, revision, TOKENIZER_FILES)
        config = load_config(folder, name)
        proof = prove(config, name)
    except (ValueError, OSError) as error:
        msg.fail("Cannot check the base", str(error), exits=1)
    msg.divider(variant_of(config))
    print_proof(proof)
    usable = proof.family is not None
    for what, check in (("weights", weights_in_words), ("tokenizer", tokenizer_in_words)):
        try:
            msg.good(f"{what}: {check(folder, config)}")
        except BaseError as error:
            msg.fail(f"{what}: {error}")
            usable = False
    if not usable:
        raise Exit(1)


def print_proof(proof: Proof) -> None:
    """Print all findings and the conclusion."""
    if proof.family is None:
        for finding in proof.findings[:-1]:
            (msg.good if finding.passed else msg.warn)(finding.what, finding.measured)
        msg.fail(f"Not usable with transformers {proof.version}. Failed check: {proof.reason}")
        return
    for finding in proof.findings:
        # If a usable family fails a check, that costs speed, not correctness.
        (msg.good if finding.passed else msg.warn)(finding.what, finding.measured)
    rows = "short texts share rows" if proof.family.packs else "each text has its own row"
    msg.good(
        f"The mask can be removed ({proof.seconds:.1f} seconds, transformers {proof.version}). "
        f"Attention: {', '.join(proof.family.attentions)}; {rows}"
    )


def weights_in_words(folder: Path, config: Any) -> str:
    """Describe whether a folder's weight files fit its config, by names and shapes, not values.

    RAISES (BaseError): They do not fit.
    """
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return "not downloaded, so not checked"
    model = skeleton(config)
    check_weights(folder, model)
    return f"{sum(value.numel() for value in model.parameters()):,} parameters, none missing"


def tokenizer_in_words(folder: Path, config: Any) -> str:
    """Describe the tokenizer of a folder.

    RAISES (BaseError): It cannot be used.
    """
    rows = embedding_rows(skeleton(config))
    beyond = list(pieces_beyond(load_tokenizer(folder), rows))
    tokenizer = load_tokenizer(folder, rows)
    without = f"; without {', '.join(map(repr, beyond))}, for which the base has no embedding" if beyond else ""
    return f"{type(tokenizer).__name__} of {len(tokenizer):,} pieces, with character offsets{without}"
