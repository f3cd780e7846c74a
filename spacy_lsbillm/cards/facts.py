"""Reading the files of a stored pipeline for its card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.util import load_config
from thinc.api import Config

from ..backbone import RECORD, read_record
from ..errors import StorageError
from ..files import parse_json
from ..pipeline.config_blocks import billm_blocks

META, CONFIG = "meta.json", "config.cfg"
# Entries of the meta beside spaCy's own: how it was trained, scores on other data, and the results of `calibrate`.
TRAINING, EVALUATIONS, CALIBRATION = "training", "evaluations", "calibration"


@dataclass(frozen=True)
class Facts:
    """The facts about one pipeline.

    meta (dict): Its `meta.json`.
    config (Config): Its config, interpolated.
    records (dict[str, dict | None]): The record of each billm_transformer, by component; None if it was never
        initialised.
    seconds (float | None): How long its training took, if that is known.
    """

    meta: dict[str, Any]
    config: Config
    records: dict[str, dict[str, Any] | None]
    seconds: float | None = None

    @classmethod
    def read(cls, folder: Path, seconds: float | None = None) -> "Facts":
        """Read the facts from a pipeline's folder.

        RAISES (StorageError): The folder contains no pipeline, or a damaged one.
        """
        try:
            meta = parse_json((folder / META).read_text(encoding="utf8"))
            config = load_config(folder / CONFIG, interpolate=True)
        except (OSError, ValueError) as error:
            raise StorageError(f"{folder} cannot be read as a pipeline: {error}") from error
        names = list(billm_blocks(config))
        records = {name: read_record(folder / name) if (folder / name / RECORD).exists() else None for name in names}
        return cls(meta, config, records, seconds)

    @property
    def name(self) -> str:
        """The name of the pipeline's package."""
        return f"{self.meta.get('lang', 'xx')}_{self.meta.get('name', 'pipeline')}"

    @property
    def was_trained_by_config(self) -> bool:
        """Whether it was trained with its config: spaCy's training leaves scores in the meta.

        (Any pipeline has a section `[training]`; its defaults say nothing about a pipeline that was trained in another
        way.)
        """
        return bool(self.meta.get("performance") or self.meta.get(TRAINING))

    @property
    def components(self) -> dict[str, dict[str, Any]]:
        """The blocks of its components, in order."""
        blocks = self.config.get("components", {})
        return {name: blocks[name] for name in self.config["nlp"]["pipeline"] if name in blocks}

    @property
    def data_sources(self) -> list[dict[str, Any]]:
        """The entries of `sources` that are not bases of the pipeline."""
        bases = {record["base"]["name"] for record in self.records.values() if record}
        sources = self.meta.get("sources") or []
        named = [source if isinstance(source, dict) else {"name": source} for source in sources]
        return [source for source in named if source.get("name") and source["name"] not in bases]

    def corpus(self, name: str) -> str | None:
        """The file or folder name of a corpus, "train" or "dev", without its path on a disk; None if it is unknown."""
        path = self.config.get("corpora", {}).get(name, {}).get("path")
        if not path or not self.was_trained_by_config:
            return None
        return Path(path).name if Path(path).is_absolute() else str(path)
