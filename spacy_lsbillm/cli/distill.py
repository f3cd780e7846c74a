"""`python -m spacy lsbillm distill`: train a small pipeline on the annotation of a large one."""

from pathlib import Path
from typing import Annotated

from spacy.cli._util import import_code, parse_config_overrides
from typer import Argument, Context, Option
from wasabi import msg

from ..annotation import SUFFIXES, Keys, RunSettings
from ..distillation import DistillSettings, distill
from ..training import Interval
from . import app
from .device import device_of
from .options import (
    BatchOption,
    CodeOption,
    ErrorsOption,
    GpuOption,
    IdKeyOption,
    ProcessesOption,
    QuietOption,
    TextKeyOption,
)
from .pipelines import any_pipeline_folder
from .stopped import exit_if_stopped

TeacherArgument = Annotated[str, Argument(help="A trained pipeline: its folder, or the name of its installed package")]
StudentArgument = Annotated[Path, Argument(help="Training config of the student", exists=True, dir_okay=False)]
TextArgument = Annotated[
    Path, Argument(help=f"Plain text: a file that ends in {', '.join(SUFFIXES)}, or a folder of such files")
]
OutputOption = Annotated[Path, Option("--output", "-o", help="Output folder; an interrupted run resumes in it")]
GoldOption = Annotated[
    Path | None, Option("--gold", help="Annotated documents to train on as well: a .spacy file or a folder of them")
]
FloorOption = Annotated[
    float, Option("--floor", help="Minimum probability of labels for spaCy's own components, which learn hard labels")
]
TagsOption = Annotated[int, Option("--top-tags", help="Most probable tags to keep per token, with their probabilities")]
EveryOption = Annotated[
    str, Option("--checkpoint-every", "-e", help="Steps (200) or time (90s, 10m, 2h) between checkpoints")
]
HOW = RunSettings()


@app.command("distill", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def distill_cli(
    ctx: Context,
    teacher: TeacherArgument,
    student: StudentArgument,
    text: TextArgument,
    output: OutputOption,
    gold: GoldOption = None,
    floor: FloorOption = DistillSettings.floor,
    top_tags: TagsOption = DistillSettings.top_tags,
    text_key: TextKeyOption = "text",
    id_key: IdKeyOption = "id",
    code: CodeOption = None,
    gpu_id: GpuOption = -1,
    checkpoint_every: EveryOption = "10m",
    processes: ProcessesOption = HOW.processes,
    batch_size: BatchOption = HOW.batch_size,
    max_errors: ErrorsOption = HOW.max_errors,
    quiet: QuietOption = False,
) -> None:
    """Train a small pipeline on plain text that a trained pipeline annotates.

    TEACHER annotates TEXT once, with the probabilities of tags and classes, in OUTPUT/targets. STUDENT_CONFIG is any
    training config. Its sequence_labeler, and its textcat with an architecture of spacy-lsbillm, learn from these
    probabilities; spaCy's ner and textcat learn from labels with a probability of at least --floor. Set values of the
    config like --paths.dev dev.spacy. The student is OUTPUT/training/model-best. Run the same command again to resume
    an interrupted run.

    Example: python -m spacy lsbillm distill training/model-best cnn.cfg text.txt --output small --paths.dev dev.spacy
    """
    with exit_if_stopped("run the same command again to continue."):
        try:
            settings = DistillSettings(
                teacher=teacher,
                teacher_folder=any_pipeline_folder(teacher),
                student=student,
                text=text,
                output=output,
                gold=gold,
                floor=floor,
                top_tags=top_tags,
                keys=Keys(text_key, id_key),
                overrides=parse_config_overrides(ctx.args),
                use_gpu=gpu_id,
                code=code,
                checkpoint_every=Interval.read(checkpoint_every),
            )
            device_of(gpu_id)
            gpus = () if gpu_id < 0 else (gpu_id,)
            how = RunSettings(processes, gpus, batch_size, max_errors=max_errors)
            import_code(code)
            done = distill(settings, how, msg.warn, msg.info, quiet)
        except (ValueError, OSError) as error:
            msg.fail("Cannot distill", str(error), exits=1)
        except KeyboardInterrupt:
            msg.warn("Stopped. Run the same command again to continue.", exits=130)
    if not done.anew:
        msg.good(f"{output} is complete already: {done.best}")
        return
    learned = [f"{', '.join(done.card[kind])} from {what}" for kind, what in WHAT.items() if done.card[kind]]
    msg.good(f"{done.best} learned {' and '.join(learned)} of {done.card['teacher']['name']}")


WHAT = {"soft": "the probabilities", "hard": "the labels"}
