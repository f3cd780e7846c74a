"""The pipeline components. Importing this package makes what they write on documents known to spaCy, also where
documents are read and no pipeline is made: `doc._.trf_data`, `ent._.ent_score`, `doc._.ent_scores`.

spaCy imports it wherever a pipeline is made, be it a blank one, as the factories are entry points; and a pipeline that
is unpickled imports it with the classes of its components.
"""

from spacy_transformers.pipeline_component import install_extensions

from .span_writing import register_scores

install_extensions()
register_scores()
