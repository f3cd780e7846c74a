"""The registered architectures, as config files name them."""

from collections.abc import Callable
from copy import deepcopy
from inspect import Parameter, signature
from typing import Any

from spacy.tokens import Doc
from spacy_transformers.span_getters import get_doc_spans
from thinc.api import Model
from thinc.types import Floats2d, Floats3d, Ragged

from .alignment.pieces import SpanGetter
from .backbone import BackboneSettings, BaseSettings, LoraSettings
from .layers import (
    LossSettings,
    ModelSettings,
    ShimSettings,
    build_billm_model,
    build_pooled_textcat,
    build_sequence_labeler,
    build_span_finder,
    build_span_labeler,
    build_textcat_reduce,
    build_tok2vec,
)

DEFAULT_LORA: dict[str, Any] = LoraSettings().as_block()


def defaults_of(architecture: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of an architecture that have a default, and the defaults: what a factory's default config says.

    RETURNS (dict[str, Any]): A copy, which may be changed.
    """
    arguments = signature(architecture).parameters.values()
    return {
        argument.name: deepcopy(argument.default) for argument in arguments if argument.default is not Parameter.empty
    }


def create_billm_model_v1(
    name: str,
    get_spans: SpanGetter | None = None,
    revision: str | None = BaseSettings.revision,
    unmask: str | int = BackboneSettings.unmask,
    lora: dict[str, Any] | None = DEFAULT_LORA,
    quantization: str | None = BaseSettings.quantization,
    dtype: str = BaseSettings.dtype,
    attention: str = BaseSettings.attention,
    depth: int | None = BaseSettings.depth,
    scalar_mix: str | None = BackboneSettings.scalar_mix,
    gradient_checkpointing: bool = BackboneSettings.gradient_checkpointing,
    window: int | None = ModelSettings.window,
    overlap: int | None = ModelSettings.overlap,
    repeat: int = ModelSettings.repeat,
    learn_rate_scale: float = ShimSettings.learn_rate_scale,
    heads_first: int = ShimSettings.heads_first,
    unmask_warmup: int = ShimSettings.unmask_warmup,
    output: str = ShimSettings.output,
    adapter_optimizer: str | None = ShimSettings.adapter_optimizer,
    store_base: str = ShimSettings.store_base,
    store_adapter: str = ShimSettings.store_adapter,
    fold_adapter: str = ShimSettings.fold_adapter,
    add_bos_token: bool | None = ShimSettings.add_bos_token,
    white_space: str | None = ShimSettings.white_space,
    device: str | None = ShimSettings.device,
) -> Model[list[Doc], Any]:
    """Create a decoder-only language model that gives one vector per spaCy token.

    The causal mask is removed from all or some of its layers, and it is tuned with LoRA. Nothing is loaded before
    `initialize` or `from_disk`.

    name (str): The base: a folder in Hugging Face format, or a hub id.
    get_spans (Callable | None): A registered span getter: the parts of documents that are processed on their own, or
        with the context that "spacy-lsbillm.context_spans.v1" gives them from their document. None: whole documents.
    revision (str | None): The revision of the base on the hub.
    unmask (str): The layers that attend in both directions: "all", "none", "0011" or "bits:0011" (the first bit is the
        group next to the input), "from:8", "layers:4-7,12".
    lora (dict | None): Settings of the adapter; missing ones have their defaults. None: the base stays frozen.
    quantization (str | None): None, "nf4", "fp4" or "int8".
    dtype (str): "float32", "bfloat16", "float16" or "auto".
    attention (str): "sdpa" or "eager"; "auto" is the best that computes what the model was trained with.
    depth (int | None): Use only this many of the first layers; `unmask` counts these. None: all.
    scalar_mix (str | None): The layers whose learned mix is the output, in the notation of `unmask`. None: the last.
    gradient_checkpointing (bool): Training takes less memory and more time; the result is the same.
    window (int | None): Maximum pieces that the model processes at once. None: 512, or less for a small base, see
        `default_window`.
    overlap (int | None): Minimum pieces that neighbouring windows share. None: 16 in windows of at least 512, none in
        shorter ones.
    repeat (int): Number of additional copies of a window's pieces before the one whose states are used, so that causal
        layers see the whole window as well (arXiv 2601.17585). A forward pass costs `repeat` + 1 times as much.
    learn_rate_scale (float): The adapter's learning rate, relative to that of the optimizer.
    heads_first (int): Number of updates at the beginning that change only the heads.
    unmask_warmup (int): Number of updates over which unmasked layers are gradually shown their right side: its
        attention scores get log(t) added, with t rising from 0, as if causal, to 1. Predictions are always made without
        the mask. 0: without it from the beginning.
    output (str): "tokens": one vector per token, the mean of its pieces. "pieces": one per piece, for listeners that
        pool them differently, and for code that reads `doc._.trf_data` as spacy-transformers fills it.
    adapter_optimizer (str | None): Optimizer states of the adapter that take less memory: "adamw_8bit",
        "paged_adamw_32bit" or "paged_adamw_8bit". None: those of the config's optimizer.
    store_base (str): What a saved pipeline contains of the base: "reference" (its name and fingerprint), "copy", or
        "merged" (with the adapter folded in).
    store_adapter (str): The dtype in which the adapter is saved: "float32", as it was trained, or "bfloat16" or
        "float16", which take half the space and round it.
    fold_adapter (str): Whether prediction uses a second copy of the weights that the adapter changes, with the adapter
        folded in: "always", "never", or "auto": if the base is neither quantised nor shared and memory allows it.
    add_bos_token (bool | None): Whether each window begins with the tokenizer's start token. None: the tokenizer's own
        behaviour.
    white_space (str | None): How white space is shown to the tokenizer: "text" (as it is), "lines" (as single blanks
        and line breaks) or "blank" (as single blanks). None: "lines"; in a trained pipeline, as in its training.
    device (str | None): The device of the base, whatever spaCy uses: "cuda", "mps" (Apple's GPUs) or "cpu". None: the
        same as spaCy.
    RAISES (ValueError): A value is not allowed for any base.
    """
    backbone = BackboneSettings(
        base=BaseSettings(name, revision, dtype, quantization, attention, depth),
        unmask=unmask,  # type: ignore[arg-type]  # an integer is refused with advice
        lora=None if lora is None else LoraSettings.read(lora, DEFAULT_LORA),
        scalar_mix=scalar_mix,
        gradient_checkpointing=gradient_checkpointing,
    )
    settings = ShimSettings(
        backbone,
        store_base=store_base,
        learn_rate_scale=learn_rate_scale,
        heads_first=heads_first,
        unmask_warmup=unmask_warmup,
        output=output,
        adapter_optimizer=adapter_optimizer,
        store_adapter=store_adapter,
        fold_adapter=fold_adapter,
        add_bos_token=add_bos_token,
        white_space=white_space,
        device=device,
    )
    return build_billm_model(settings, ModelSettings(get_spans or get_doc_spans, window, overlap, repeat))


def create_tok2vec_billm_v1(
    transformer: Model[list[Doc], Any], pooling: Model[Ragged, Floats2d], grad_factor: float = 1.0
) -> Model[list[Doc], list[Floats2d]]:
    """Create a layer that gives a component its own backbone, in place of a listener.

    `Language.replace_listeners` writes it into configs.

    transformer (Model): From `spacy-lsbillm.BiLLMModel.v1`.
    pooling (Model): The pooling layer of the listener that it replaces. It has an effect only with `output = "pieces"`;
        otherwise there is already one vector per token.
    grad_factor (float): Factor for gradients on their way to the adapter.
    """
    return build_tok2vec(transformer, pooling, grad_factor)


def create_sequence_labeler_v1(
    tok2vec: Model[list[Doc], list[Floats2d]], nO: int | None = None
) -> Model[list[Doc], list[Floats2d]]:
    """Create the model of a `sequence_labeler`: dropout and one linear layer over token vectors.

    The dropout rate is `training.dropout`.

    tok2vec (Model): A listener, or any other layer that gives one vector per token.
    nO (int | None): The number of tags; null: set by the component from its labels.
    """
    return build_sequence_labeler(tok2vec, nO)


def create_span_labeler_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    hidden_size: int = 64,
    block_size: int = 1_000_000,
    nO: int | None = None,
) -> Model[list[Doc], list[Floats3d]]:
    """Create the model of a `span_labeler`, which scores each label for each span up to a maximum length.

    Scores are computed from the span's first word, its last word and its length. The dropout rate is
    `training.dropout`.

    tok2vec (Model): A listener, or any other layer that gives one vector per token.
    hidden_size (int): The width of the two projections of a token vector.
    block_size (int): How many scores a prediction computes at once; fewer take less memory.
    nO (int | None): The number of labels; null: set by the component.
    RAISES (SettingError): A size is not allowed.
    """
    return build_span_labeler(tok2vec, hidden_size, block_size, nO)


def create_pooled_textcat_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    exclusive_classes: bool,
    pooling: str = "mean",
    nO: int | None = None,
    class_weights: str | dict[str, float] | None = None,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    calibrated: bool = True,
) -> Model[list[Doc], Floats2d]:
    """Create a model for spaCy's `textcat` and `textcat_multilabel`.

    Token vectors are pooled to one per document, to which dropout and one linear layer are applied.

    tok2vec (Model): A listener, or any other layer that gives one vector per token.
    exclusive_classes (bool): True for `textcat`, false for `textcat_multilabel`.
    pooling (str): "last", "mean", "max" or "attention".
    nO (int | None): The number of classes; null: set by the component from its labels.
    class_weights (str | None): "balanced": a document is weighted inversely to how often its class has been seen in
        training so far; null: all have the same weight.
    focal_gamma (float): Focal loss: documents that are already learned are weighted less; 0: off, 2: the usual value.
    label_smoothing (float): The share of the target distribution that is spread evenly over all classes.
    calibrated (bool): Apply the calibration that `spacy lsbillm calibrate` has found, if there is one.
    RAISES (SettingError): A value is not allowed.
    """
    loss = LossSettings(class_weights, focal_gamma, label_smoothing)
    return build_pooled_textcat(tok2vec, exclusive_classes, pooling, nO, loss, calibrated)


def create_textcat_reduce_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    exclusive_classes: bool,
    use_reduce_first: bool,
    use_reduce_last: bool,
    use_reduce_max: bool,
    use_reduce_mean: bool,
    nO: int | None = None,
) -> Model[list[Doc], Floats2d]:
    """Create a `spacy.TextCatReduce.v1`, with the same settings and weights, for incomplete corpora.

    Empty documents are not an error, and documents without a class are left out of the loss of a `textcat`.

    tok2vec (Model): A listener, or any other layer that gives one vector per token.
    exclusive_classes (bool): True for `textcat`, false for `textcat_multilabel`.
    use_reduce_first (bool), use_reduce_last (bool), use_reduce_max (bool), use_reduce_mean (bool): What is pooled; at
        least one.
    nO (int | None): The number of classes; null: set by the component from its labels.
    RAISES (ValueError): Nothing is pooled.
    """
    return build_textcat_reduce(
        tok2vec, exclusive_classes, use_reduce_first, use_reduce_last, use_reduce_max, use_reduce_mean, nO
    )


def create_span_finder_v1(
    tok2vec: Model[list[Doc], list[Floats2d]], scorer: Model[Floats2d, Floats2d]
) -> Model[list[Doc], Floats2d]:
    """Create a `spacy.SpanFinder.v1`, with the same settings and weights, that accepts batches of empty documents.

    tok2vec (Model): A listener, or any other layer that gives one vector per token.
    scorer (Model): Maps token vectors to two scores each; with `nO = 2`.
    """
    return build_span_finder(tok2vec, scorer)
