"""The pipeline components.

Importing this package registers with spaCy the attributes that they write, `doc._.trf_data`, `ent._.ent_score` and
`doc._.ent_scores`, also where documents are read without a pipeline.

spaCy imports it whenever it creates a pipeline, even a blank one, as the factories are entry points; and a pipeline
that is unpickled imports it with the classes of its components.
"""

from spacy_transformers.pipeline_component import install_extensions

from .span_writing import register_scores

install_extensions()
register_scores()
