"""The `billm_transformer` component: spacy-transformers' `Transformer` over a bidirectional LLM."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import srsly
from spacy import util
from spacy.language import Language
from spacy.pipeline import MultiLabel_TextCategorizer, TextCategorizer
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.util import minibatch
from spacy.vocab import Vocab
from spacy_transformers.annotation_setters import null_annotation_setter
from spacy_transformers.data_classes import TransformerData
from spacy_transformers.layers import TransformerListener
from spacy_transformers.pipeline_component import DOC_EXT_ATTR, Transformer
from thinc.api import Config, Model, Optimizer

from ..backbone import RECORD, REFERENCE, MaskPlan
from ..errors import SettingError
from ..files import check_seal, replaced_folder, write_seal
from ..layers import ONLY_LABELLED, PIECE_POOLINGS, PIECES, backbone_shim, fit
from .listener_checks import check_kinds, check_widths
from .pending import PendingUpdate

DEFAULT_CONFIG = Config().from_str(
    """
[transformer]
max_batch_items = 4096

[transformer.set_extra_annotations]
@annotation_setters = "spacy-transformers.null_annotation_setter.v1"

[transformer.model]
@architectures = "spacy-lsbillm.BiLLMModel.v1"
name = "Qwen/Qwen2.5-0.5B"
revision = null
unmask = "all"
quantization = null
dtype = "float32"
attention = "auto"
depth = null
scalar_mix = null
gradient_checkpointing = false
window = null
overlap = null
learn_rate_scale = 1.0
heads_first = 0
output = "tokens"
adapter_optimizer = null
store_base = "reference"
store_adapter = "float32"
fold_adapter = "auto"
add_bos_token = null

[transformer.model.get_spans]
@span_getters = "spacy-transformers.doc_spans.v1"

[transformer.model.lora]
r = 16
alpha = 32
dropout = 0.05
target_modules = "all-linear"
use_rslora = false
use_dora = false
"""
)["transformer"]


# For the card of a package that needs a base which is on no hub.
MAKE_BASE = """### The base

The base model, `{name}`, is not in this package. Make it once, in a folder of your choice:

```
{made_with}
```

and say where it is, in one of three ways: have the folder at `{name}`; have the environment variable
`SPACY_LSBILLM_BASES` name a JSON file with `{{"{name}": "/path/to/FOLDER"}}`; or load the pipeline with
`config={{"components": {{"transformer": {{"model": {{"name": "/path/to/FOLDER"}}}}}}}}`."""

# Written beside the settings: a pipeline that was saved before it was initialised has no backbone to load.
INITIALIZED = "initialized"


@Language.factory("billm_transformer", assigns=[f"doc._.{DOC_EXT_ATTR}"], default_config=DEFAULT_CONFIG)
def make_billm_transformer(
    nlp: Language,
    name: str,
    model: Model[list[Doc], Any],
    set_extra_annotations: Callable[[list[Doc], Any], None],
    max_batch_items: int,
) -> "BiLLMTransformer":
    """Make the component. It reads no weights and asks no hub; `initialize` and `from_disk` do.

    model (Model): From `spacy-lsbillm.BiLLMModel.v1`.
    set_extra_annotations (Callable): Called with each batch of documents and the model's output.
    max_batch_items (int): Pieces that go through the model at once, padding counted.
    """
    return BiLLMTransformer(nlp.vocab, model, set_extra_annotations, name=name, max_batch_items=max_batch_items)


class BiLLMTransformer(Transformer):
    """A decoder-only LLM that attends in both directions, shared by all components that listen.

    `doc._.trf_data` holds one vector a token, or a piece. Adapters are the only weights that are trained and, unless
    `store_base` says otherwise, the only ones saved.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], Any],
        set_extra_annotations: Callable[[list[Doc], Any], None] = null_annotation_setter,
        *,
        name: str = "transformer",
        max_batch_items: int = 4096,
    ):
        if max_batch_items < 1:
            raise SettingError(f"max_batch_items = {max_batch_items!r} is not allowed: it must be at least 1.")
        super().__init__(vocab, model, set_extra_annotations, name=name, max_batch_items=max_batch_items)
        self.model.attrs["max_batch_items"] = max_batch_items
        self._pending: PendingUpdate | None = None

    @property
    def mask(self) -> MaskPlan:
        """Which layers attend in both directions, as the config has it: `mask.unmasked`, one entry a layer, and
        `mask.words`."""
        return backbone_shim(self.model).backbone.plan

    def use_mask(self, notation: str | None) -> None:
        """Compute with other layers unmasked from now on, to compare masks on one set of weights or to train under
        several. What is saved has the mask of the config.

        notation (str | None): In mask notation; None goes back to the config's.
        RAISES (MaskError): It cannot be read or does not fit the number of layers.
        """
        # A backward pass that is still to come belongs to the mask of its forward pass.
        self._settle()
        backbone_shim(self.model).backbone.use_mask(notation)

    def predict(self, docs: Iterable[Doc]) -> Any:
        """The vectors of documents, as `set_annotations` takes them."""
        self._settle_heard()
        return super().predict(docs)

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Apply the component to a stream of documents. The model sorts what it gets by length itself.

        batch_size (int): Documents that are buffered.
        """
        for batch in minibatch(stream, batch_size):
            docs = list(batch)
            self.set_annotations(docs, self.predict(docs))
            yield from docs

    def initialize(self, get_examples: Callable[[], Iterable[Example]], *, nlp: Language | None = None) -> None:
        """Load the base, put the adapter on it and connect the listeners. Examples are looked at only where a `textcat`
        with a model of spaCy's own listens: it learns from documents without a class, which is warned of.

        RAISES (SettingError): A listener stands behind another transformer, whose vectors it would get, pools pieces
            where it gets tokens, is of another kind or was made for another width.
        """
        if nlp is not None:
            check_kinds(nlp, self)
            self._check_order(nlp)
            self._check_pooling(nlp)
        super().initialize(get_examples, nlp=nlp)
        check_widths(self, self.model.get_dim("nO"))
        if nlp is not None:
            self._name_source(nlp)
            self._warn_of_unlabelled(nlp, get_examples)

    def _name_source(self, nlp: Language) -> None:
        """Have `meta.json` list the base, where `spacy package` looks for what a pipeline is made from."""
        backbone = backbone_shim(self.model).backbone
        revision = backbone.origin.commit or backbone.base.revision
        source = {
            "name": backbone.base.name,
            "url": f"https://huggingface.co/{backbone.base.name}" if backbone.origin.commit else "",
            "license": backbone.origin.license or "",
            **({"revision": revision} if revision else {}),
            **({"made_with": backbone.origin.made_with} if backbone.origin.made_with else {}),
        }
        sources = nlp.meta.get("sources") or []
        if source not in sources:
            nlp.meta["sources"] = [*sources, source]
            if backbone.origin.made_with and backbone_shim(self.model).settings.store_base == REFERENCE:
                # What `spacy package` puts at the end of the package's card.
                notes = MAKE_BASE.format(name=backbone.base.name, made_with=backbone.origin.made_with)
                nlp.meta["notes"] = "\n\n".join(filter(None, [nlp.meta.get("notes"), notes]))

    def _check_order(self, nlp: Language) -> None:
        """When a pipeline is run, `doc._.trf_data` holds the vectors of the last transformer that has run."""
        behind = None
        names = iter(nlp.pipeline)
        next(name for name, pipe in names if pipe is self)
        for name, pipe in names:
            if isinstance(pipe, Transformer):
                behind = name
            elif behind is not None and name in self.listening_components:
                raise SettingError(
                    f"{name!r} listens to {self.name!r}, but stands behind {behind!r}, which overwrites "
                    f"doc._.{DOC_EXT_ATTR}. Put each transformer right before the components that listen to it."
                )

    def _warn_of_unlabelled(self, nlp: Language, get_examples: Callable[[], Iterable[Example]]) -> None:
        """spaCy takes a document without a class for one that has none of the classes, which each must have one of."""
        learn = [name for name in self.listening_components if _learns_from_unlabelled(nlp.get_pipe(name))]
        if not learn:
            return
        has_class = [any(example.reference.cats.values()) for example in get_examples()]
        # Where none has one, as in `spacy assemble`, there is no corpus for a textcat.
        if any(has_class) and not all(has_class):
            warnings.warn(
                f"{has_class.count(False)} of {len(has_class)} documents of the training corpus have no class in "
                f"doc.cats. {learn[0]!r} will learn from them that none of its classes is probable, as the model is "
                f"spaCy's own. Use spacy-lsbillm.TextCatReduce.v1 or spacy-lsbillm.PooledTextCat.v1, which leave them "
                f"out, and for scoring spacy-lsbillm.textcat_scorer.v1; or leave them out of the corpus.",
                stacklevel=3,
            )

    def _check_pooling(self, nlp: Language) -> None:
        """A choice among one piece is none: the listener would get the mean."""
        if backbone_shim(self.model).settings.output == PIECES:
            return
        for name in self.listening_components:
            model: Any = getattr(nlp.get_pipe(name), "model", None)
            found = {layer.name for layer in model.walk()}.intersection(PIECE_POOLINGS)
            if found:
                raise SettingError(
                    f"{name!r} pools the pieces of a token with {found.pop()!r}, but {self.name!r} gives it their "
                    f'mean. Set output = "pieces" in the model of {self.name!r}, or the pooling to "reduce_mean.v1".'
                )

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Run the backbone in training and hand its output to the listeners. Their gradients come back later, in one
        backward pass: as soon as all have come, else before the next step or forward pass.

        drop (float): Has no effect: the adapter has a dropout of its own.
        sgd (Optimizer | None): To step with once the gradients are there.
        losses (dict): The squared norms of the gradients are added under the component's name.
        """
        examples = list(examples)
        validate_examples(examples, "BiLLMTransformer.update")
        losses = {} if losses is None else losses
        docs = [example.predicted for example in examples]
        self._settle()
        if not any(len(doc) for doc in docs):
            return losses
        output, backprop = self.model.begin_update(docs)
        losses.setdefault(self.name, 0.0)
        pending = PendingUpdate(output, backprop, len(self.listeners), sgd or None)

        def hear(gradients: list[TransformerData]) -> list[Doc]:
            losses[self.name] += pending.add(gradients)
            if pending.complete:
                self._settle()
            return docs

        self._pending = pending
        batch_id = TransformerListener.get_batch_id(docs)
        for listener in self.listeners:
            listener.receive(batch_id, output.doc_data, hear)
        return losses

    def finish_update(self, sgd: Optimizer) -> None:
        """Let the optimizer change the adapter. `nlp.update` asks for it before any listener has learned: it is done
        once they have."""
        if self._pending is not None and not self._pending.heard:
            self._pending.optimizer = sgd
            return
        self._settle()
        self.model.finish_update(sgd)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Processes that are not forked get their pipelines by pickle. What waits for a gradient, here and in listeners
        # whose components did not learn, cannot be pickled, and nothing will come any more.
        self._settle()
        for listener in self.listeners:
            listener.receive(None, None, None)
        return super().__reduce_ex__(protocol)

    def _settle(self) -> None:
        """Do what is left to do of the last forward pass."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.finish()
            if pending.optimizer is not None:
                self.model.finish_update(pending.optimizer)

    def _settle_heard(self) -> None:
        """The same before weights are used or saved: a listener whose component is frozen never sends its gradient.
        Before the first one has sent its own, this is an annotating transformer, and those who learn are still to come.
        """
        if self._pending is not None and self._pending.heard:
            self._settle()

    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other values, such as averages, until the generator goes on; `nlp.use_params` is made of these.

        params (dict): By the layer's id and the parameter's name.
        """
        self._settle_heard()
        yield from super().use_params(params)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the component to a folder, which is replaced as a whole once everything is written and synced.

        exclude (Iterable[str]): "vocab" or "model".
        RAISES (StorageError): The folder exists and is no component's, or another process is writing it.
        """
        self._settle_heard()
        serialize = {
            "cfg": lambda p: srsly.write_json(p, {**self.cfg, INITIALIZED: backbone_shim(self.model).loaded}),
            "vocab": lambda p: self.vocab.to_disk(p),
            "model": lambda p: backbone_shim(self.model).save(p.parent),
        }
        with replaced_folder(Path(path), known_by="cfg") as folder:
            util.to_disk(folder, serialize, exclude)
            write_seal(folder)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "BiLLMTransformer":
        """Read the component from a folder, and the base from where the config says.

        RAISES (ValueError): Something is damaged or missing, or the base is another one.
        """
        deserialize = {
            "vocab": self.vocab.from_disk,
            "model": lambda p: self._load(p.parent),
        }
        check_seal(Path(path))
        util.from_disk(path, deserialize, exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """The same as a message. With `store_base = "copy"` or `"merged"` it holds the base."""
        self._settle_heard()
        serialize = {
            "cfg": lambda: srsly.json_dumps(self.cfg),
            "vocab": self.vocab.to_bytes,
            "model": lambda: backbone_shim(self.model).to_bytes(),
        }
        return util.to_bytes(serialize, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "BiLLMTransformer":
        """Read what `to_bytes` gave."""

        def load_model(data: bytes) -> None:
            if backbone_shim(self.model).from_bytes(data).loaded:
                fit(self.model)

        deserialize = {
            "vocab": self.vocab.from_bytes,
            "model": load_model,
        }
        util.from_bytes(bytes_data, deserialize, exclude)
        return self

    def _load(self, folder: Path) -> None:
        if (folder / RECORD).exists() or srsly.read_json(folder / "cfg")[INITIALIZED]:
            backbone_shim(self.model).load(folder)
            fit(self.model)


def _learns_from_unlabelled(pipe: Any) -> bool:
    """Whether it is a `textcat` whose model does not leave out documents without a class."""
    exclusive = isinstance(pipe, TextCategorizer) and not isinstance(pipe, MultiLabel_TextCategorizer)
    return exclusive and not pipe.model.attrs.get(ONLY_LABELLED)
