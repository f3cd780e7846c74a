"""The `billm_transformer` component: spacy-transformers' `Transformer` over a bidirectional LLM."""

import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import srsly
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.util import minibatch
from spacy.vocab import Vocab
from spacy_transformers.annotation_setters import null_annotation_setter
from spacy_transformers.data_classes import TransformerData
from spacy_transformers.layers import TransformerListener
from spacy_transformers.pipeline_component import DOC_EXT_ATTR, Transformer
from thinc.api import Model, Optimizer

from ..architectures import create_billm_model_v1, defaults_of
from ..backbone import RECORD, MaskPlan
from ..errors import ListenerError
from ..files import check_seal, replaced_folder, write_seal
from ..layers import MAX_BATCH_ITEMS, backbone_shim, fit_to_base, guard, listeners_in, skip_pooling
from ..values import check_at_least
from .listener_checks import check_kinds, check_linkers, check_pooling, check_widths, warn_of_unlabelled
from .pending import PendingUpdate
from .schedule_checks import warn_of_steps
from .sources import name_sources, name_sources_beside

# The defaults of the model are those of its architecture, which has them from the classes of its settings.
DEFAULT_CONFIG: dict[str, Any] = {
    "max_batch_items": MAX_BATCH_ITEMS,
    "set_extra_annotations": {"@annotation_setters": "spacy-transformers.null_annotation_setter.v1"},
    "model": {
        "@architectures": "spacy-lsbillm.BiLLMModel.v1",
        "name": "Qwen/Qwen2.5-0.5B",
        **defaults_of(create_billm_model_v1),
        "get_spans": {"@span_getters": "spacy-transformers.doc_spans.v1"},
    },
}

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
    """Create a `billm_transformer`. No weights are read and no hub is contacted before `initialize` or `from_disk`.

    model (Model): From `spacy-lsbillm.BiLLMModel.v1`.
    set_extra_annotations (Callable): Called with each batch of documents and the model's output.
    max_batch_items (int): Maximum pieces that go through the model at once, including padding.
    """
    return BiLLMTransformer(nlp.vocab, model, set_extra_annotations, name=name, max_batch_items=max_batch_items)


class BiLLMTransformer(Transformer):
    """A decoder-only LLM that attends in both directions, shared by all components that listen to it.

    `doc._.trf_data` contains one vector per token, or per piece. Only the adapters are trained, and only they are saved
    unless `store_base` says otherwise.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], Any],
        set_extra_annotations: Callable[[list[Doc], Any], None] = null_annotation_setter,
        *,
        name: str = "transformer",
        max_batch_items: int = MAX_BATCH_ITEMS,
    ):
        check_at_least("max_batch_items", max_batch_items, 1, " piece")
        super().__init__(vocab, model, set_extra_annotations, name=name, max_batch_items=max_batch_items)
        self.model.attrs["max_batch_items"] = max_batch_items
        self._pending: PendingUpdate | None = None
        # Stored in each listener that this transformer was before, to be recognised in another pipeline. Loading the
        # same folder twice gives the same value.
        self._token = uuid.uuid4().hex

    @property
    def listener_map(self) -> dict[str, list[TransformerListener]]:
        """The listeners, by the name of their component.

        Whenever a pipeline is assembled, spaCy empties it and then calls `find_listeners` with each following component
        in turn.
        """
        return self._listener_map

    @listener_map.setter
    def listener_map(self, listeners: dict[str, list[TransformerListener]]) -> None:
        self._listener_map = listeners
        self._behind: str | None = None

    def find_listeners(self, component: Any) -> None:
        """Connect a component, the next one behind this transformer, if it is a listener.

        `doc._.trf_data` contains the vectors of the transformer that ran last, so a component behind another
        transformer cannot listen to this one; a listener that names no transformer listens to the last one before it.

        RAISES (ListenerError): The component names this transformer, or was trained with it, but is behind another one.
        RAISES (SettingError): It pools pieces although it gets tokens.
        """
        if component is self:
            self._behind = None
        elif isinstance(component, Transformer):
            self._behind = component.name
        elif self._behind is None:
            super().find_listeners(component)
            if getattr(component, "name", None) in self.listener_map:
                check_pooling(component, self)
                skip_pooling(component.model)
        else:
            for listener in listeners_in(getattr(component, "model", None)):
                named = listener.upstream_name == self.name
                if named or (listener.upstream_name == "*" and _heard(listener) == self._token):
                    raise ListenerError(
                        f"{component.name!r} {'listens to' if named else 'was trained with'} {self.name!r}, but is "
                        f"behind {self._behind!r}, which overwrites doc._.{DOC_EXT_ATTR}. Put each transformer right "
                        f"before the components that listen to it, or give {component.name!r} its own "
                        f"(replace_listeners)."
                    )

    def add_listener(self, listener: TransformerListener, component_name: str) -> None:
        """Add a listener, and make it refuse documents that this transformer has not processed."""
        super().add_listener(listener, component_name)
        guard(listener, component_name, self.name)
        if _heard(listener) not in (None, self._token):
            warnings.warn(
                f"{component_name!r} was trained with another transformer than the {self.name!r} before it: unless it "
                f"is trained again, its predictions are worthless. Use the transformer from the same pipeline, "
                f"or give {component_name!r} its own there (replace_listeners).",
                stacklevel=2,
            )
        if backbone_shim(self.model).loaded:
            listener.heard = self._token

    @property
    def mask(self) -> MaskPlan:
        """The mask that the config sets.

        `mask.unmasked` says for each layer whether it attends in both directions, and `mask.words` describes it.
        """
        return backbone_shim(self.model).backbone.plan

    def use_mask(self, notation: str | None) -> None:
        """Unmask other layers from now on, to compare masks on the same weights or to train with several masks.

        A saved pipeline has the mask of the config.

        notation (str | None): A mask in mask notation; None restores the one of the config.
        RAISES (MaskError): The mask cannot be read or does not fit the number of layers.
        """
        # A pending backward pass belongs to the mask of its forward pass.
        self.settle()
        backbone_shim(self.model).backbone.use_mask(notation)

    def predict(self, docs: Iterable[Doc]) -> Any:
        """Compute the vectors of documents, in the form that `set_annotations` accepts."""
        self._settle_heard()
        return super().predict(docs)

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Apply the component to a stream of documents.

        The model itself sorts documents by length. A batch that fails is passed to the error handler
        (`nlp.set_error_handler`), and to no further component.

        batch_size (int): How many documents are buffered.
        """
        for batch in minibatch(stream, batch_size):
            docs = list(batch)
            try:
                self.set_annotations(docs, self.predict(docs))
            except Exception as error:
                self.get_error_handler()(self.name, self, docs, error)
            else:
                yield from docs

    def initialize(self, get_examples: Callable[[], Iterable[Example]], *, nlp: Language | None = None) -> None:
        """Load the base, add the adapter and connect the listeners.

        Examples are read only if a `textcat` with one of spaCy's own models listens, to warn of documents without a
        class, which such a model learns from. Numbers of steps in the config's training section that do not fit
        together cause a warning as well.

        RAISES (SettingError): A listener would get nothing in prediction, is of another kind, or was made for vectors
            of another width.
        """
        if nlp is not None:
            check_kinds(nlp, self)
            check_linkers(nlp, self)
            warn_of_steps(nlp.config.interpolate()["training"])
        super().initialize(get_examples, nlp=nlp)
        check_widths(self, self.model.get_dim("nO"))
        if nlp is not None:
            name_sources(nlp.meta, [self.model])
            warn_of_unlabelled(nlp, self, get_examples)

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Run the backbone in training mode and give its output to the listeners.

        Their gradients go through it later in a single backward pass: when all have arrived, or at the latest before
        the next step or forward pass.

        drop (float): Has no effect: the adapter has its own dropout.
        sgd (Optimizer | None): The optimizer for the step that follows the gradients.
        losses (dict): The squared norms of the gradients are added under the component's name.
        """
        examples = list(examples)
        validate_examples(examples, "BiLLMTransformer.update")
        losses = {} if losses is None else losses
        docs = [example.predicted for example in examples]
        self.settle()
        if not any(len(doc) for doc in docs):
            return losses
        output, backprop = self.model.begin_update(docs)
        losses.setdefault(self.name, 0.0)
        pending = PendingUpdate(output, backprop, len(self.listeners), sgd or None)

        def hear(gradients: list[TransformerData]) -> list[Doc]:
            losses[self.name] += pending.add(gradients)
            if pending.complete:
                self.settle()
            return docs

        self._pending = pending
        batch_id = TransformerListener.get_batch_id(docs)
        for listener in self.listeners:
            listener.receive(batch_id, output.doc_data, hear)
        return losses

    def finish_update(self, sgd: Optimizer) -> None:
        """Let the optimizer change the adapter.

        `nlp.update` calls this before any listener has learned; the step is postponed until they have.
        """
        if self._pending is not None and not self._pending.heard:
            self._pending.optimizer = sgd
            return
        self.settle()
        self.model.finish_update(sgd)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Processes that are not forked receive their pipelines by pickle. Pending gradients, here and in listeners
        # whose components did not learn, cannot be pickled, and will never be completed.
        self.settle()
        for listener in self.listeners:
            listener.receive(None, None, None)
        return super().__reduce_ex__(protocol)

    def settle(self) -> None:
        """Complete the last forward pass.

        Gradients that have arrived are sent through the backbone, and the step that is due is taken.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.finish()
            if pending.optimizer is not None:
                self.model.finish_update(pending.optimizer)

    def _settle_heard(self) -> None:
        """Complete the last forward pass before weights are used or saved, although a gradient is missing.

        A listener with a frozen component never sends one. If no listener has sent one, this is an annotating
        transformer, and listeners may still learn.
        """
        if self._pending is not None and self._pending.heard:
            self.settle()

    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other parameter values, such as averages, until the generator is resumed, as `nlp.use_params` needs it.

        params (dict): The values, by the layer's id and the parameter's name.
        """
        self._settle_heard()
        yield from super().use_params(params)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the component to a folder, which is replaced as a whole once everything is written and synced.

        The base is added to the `meta.json` of the pipeline, also if `initialize` did not do that, as for a sourced
        component.

        exclude (Iterable[str]): "vocab" or "model".
        RAISES (StorageError): The folder exists and is not that of a component, or another process is writing to it.
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
        name_sources_beside(Path(path), self.model)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "BiLLMTransformer":
        """Load the component from a folder, and the base from the place that the config names.

        RAISES (ValueError): A file is damaged or missing, or the base is a different one.
        """
        deserialize = {
            "vocab": self.vocab.from_disk,
            "model": lambda p: self._load(p.parent),
        }
        self._token = check_seal(Path(path))
        util.from_disk(path, deserialize, exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Serialize the component to bytes, as `to_disk` does to files.

        With `store_base = "copy"` or `"merged"` they include the base.
        """
        self._settle_heard()
        serialize = {
            "cfg": lambda: srsly.json_dumps(self.cfg),
            "vocab": self.vocab.to_bytes,
            "model": lambda: backbone_shim(self.model).to_bytes(),
        }
        return util.to_bytes(serialize, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "BiLLMTransformer":
        """Load the component from the bytes of `to_bytes`."""

        def load_model(data: bytes) -> None:
            if backbone_shim(self.model).from_bytes(data).loaded:
                fit_to_base(self.model)

        deserialize = {
            "vocab": self.vocab.from_bytes,
            "model": load_model,
        }
        util.from_bytes(bytes_data, deserialize, exclude)
        return self

    def _load(self, folder: Path) -> None:
        if (folder / RECORD).exists() or srsly.read_json(folder / "cfg")[INITIALIZED]:
            backbone_shim(self.model).load(folder)
            fit_to_base(self.model)


def _heard(listener: TransformerListener) -> str | None:
    """The identity of the last loaded transformer before a listener; None if there was none."""
    return getattr(listener, "heard", None)
