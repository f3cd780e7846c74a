"""A pipeline's predictions in a form that can be written as JSON."""

from typing import Any

from spacy.language import Language


def outputs(nlp: Language, texts: list[str]) -> list[dict[str, Any]]:
    """Token vectors, entities, spans and categories of each text, with their scores."""
    return [
        {
            "vectors": doc._.trf_data.model_output.last_hidden_state[0].round(5).tolist(),
            "ents": [[ent.start, ent.end, ent.label_, _rounded(ent._.ent_score)] for ent in doc.ents],
            "spans": {
                key: [
                    [span.start, span.end, span.label_, _rounded(score)]
                    for span, score in zip(group, group.attrs["scores"], strict=True)
                ]
                for key, group in doc.spans.items()
            },
            "cats": {label: _rounded(score) for label, score in doc.cats.items()},
        }
        for doc in nlp.pipe(texts)
    ]


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(float(score), 5)
