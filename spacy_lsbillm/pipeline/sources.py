"""What a pipeline is made from, in its `meta.json`, where `spacy package` looks for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import srsly
from thinc.api import Model

from ..backbone import REFERENCE
from ..layers import BackboneShim, shims_in

META = "meta.json"
# For the card of a package that needs a base which is on no hub.
MAKE_BASE = """### The base

The base model, `{name}`, is not in this package. Make it once, in a folder of your choice:

```
{made_with}
```

and say where it is, in one of three ways: have the folder at `{name}`; have the environment variable
`SPACY_LSBILLM_BASES` name a JSON file with `{{"{name}": "/path/to/FOLDER"}}`; or load the pipeline with
`config={{"components": {{"transformer": {{"model": {{"name": "/path/to/FOLDER"}}}}}}}}`."""


def name_sources(meta: dict[str, Any], models: Iterable[Any]) -> bool:
    """Have a pipeline's meta list the bases in its components, each once.

    models (Iterable): The components' models; what is none, or has no base that is loaded, is passed over.
    RETURNS (bool): Whether one was missing.
    """
    shims = [shim for model in models if isinstance(model, Model) for shim in shims_in(model)]
    return sum(_name_source(meta, shim) for shim in shims if shim.loaded) > 0


def name_sources_beside(folder: Path, model: Model) -> None:
    """The same in the `meta.json` of the pipeline of which a folder is a component; nothing if it is of none.

    folder (Path): The component's. spaCy has written the pipeline's meta before its components.
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
