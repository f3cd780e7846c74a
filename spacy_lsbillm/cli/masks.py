"""`python -m spacy lsbillm masks`: which layers of a pipeline attend in both directions."""

from spacy.util import load_config
from wasabi import msg, table

from ..backbone import RECORD, plan_of, read_record, word_for
from ..pipeline.config_blocks import billm_blocks
from . import app
from .options import PipelineArgument
from .pipelines import pipeline_folder


@app.command("masks")
def masks_cli(
    pipeline: PipelineArgument,
) -> None:
    """Show which layers of a trained pipeline are causal and which are bidirectional. No weights are loaded."""
    try:
        shown = pipeline_masks(pipeline)
    except ValueError as error:
        msg.fail("Cannot show the masks", str(error), exits=1)
    for name, record in shown.items():
        base, store = record["base"], record["store_base"]
        plan = plan_of(record)
        msg.divider(f"{name}: {base['name']} ({base['model_type']}, {base['layers']} layers, base stored as {store})")
        rows = [(i, word_for(unmasked)) for i, unmasked in enumerate(plan.unmasked)]
        print(table(rows, header=("layer", "attention"), divider=True))
        print(f'unmask = "{plan.notation}": {plan.words}')
        # A pipeline that an older version saved has no such entry.
        repeat = ((record.get("fitted") or {}).get("cutting") or {}).get("repeat", 0)
        if repeat:
            print(f"repeat = {repeat}: the text stands {repeat + 1} times in a row; the states of the last copy count")
        print()


def pipeline_masks(pipeline: str) -> dict[str, dict]:
    """The record of each billm_transformer in a pipeline, by component name.

    RAISES (ValueError): There is no such pipeline, or it has no such component.
    """
    folder = pipeline_folder(pipeline)
    names = billm_blocks(load_config(folder / "config.cfg"))
    missing = [name for name in names if not (folder / name / RECORD).is_file()]
    if missing:
        raise ValueError(f"{folder / missing[0]} holds no {RECORD}: the pipeline was never initialised.")
    return {name: read_record(folder / name) for name in names}
