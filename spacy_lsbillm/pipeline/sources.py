"""Recording the bases of a pipeline in its `meta.json`, where `spacy package` finds them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import srsly
from thinc.api import Model

from ..backbone import REFERENCE
from ..layers import BackboneShim, shims_in

META = "meta.json"
# For the card of a package whose base is not on a hub.
MAKE_BASE = """### The base

The base model, `{name}`, is not in this package. Make it once, in a folder of your choice:

```
{made_with}
```

and say where it is, in one of three ways: have the folder at `{name}`; have the environment variable
`SPACY_LSBILLM_BASES` name a JSON file with `{{"{name}": "/path/to/FOLDER"}}`; or load the pipeline with
`config={{"components": {{"transformer": {{"model": {{"name": "/path/to/FOLDER"}}}}}}}}`."""


def name_sources(meta: dict[str, Any], models: Iterable[Any]) -> bool:
    """List the bases of a pipeline's components in its meta, each once.

    models (Iterable): The components' models; others than models, and models without a loaded base, are skipped.
    RETURNS (bool): Whether the meta has changed.
    """
    shims = [shim for model in models if isinstance(model, Model) for shim in shims_in(model)]
    return sum(_name_source(meta, shim) for shim in shims if shim.loaded) > 0


def name_sources_beside(folder: Path, model: Model) -> None:
    """Record a base in the `meta.json` of the pipeline that contains a component's folder; do nothing if none does.

    folder (Path): The component's. spaCy writes the pipeline's meta before its components.
    """
    path = folder.parent / META
    if not path.is_file():
        return
    meta = srsly.read_json(path)
    if folder.name in meta.get("components", ()) and name_sources(meta, [model]):
        srsly.write_json(path, meta)


def _name_source(meta: dict[str, Any], shim: BackboneShim) -> bool:
    base, origin = shim.backbone.base, shim.backbone.origin
    revision = origin.commit or base.revision
    source = {
        "name": base.name,
        "url": f"https://huggingface.co/{base.name}" if origin.commit else "",
        "license": origin.license or "",
        **({"revision": revision} if revision else {}),
        **({"made_with": origin.made_with} if origin.made_with else {}),
    }
    sources = meta.get("sources") or []
    if source in sources:
        return False
    meta["sources"] = [*sources, source]
    if origin.made_with and shim.settings.store_base == REFERENCE:
        # What `spacy package` puts at the end of the package's card.
        notes = MAKE_BASE.format(name=base.name, made_with=origin.made_with)
        if notes not in (meta.get("notes") or ""):
            meta["notes"] = "\n\n".join(filter(None, [meta.get("notes"), notes]))
    return True
