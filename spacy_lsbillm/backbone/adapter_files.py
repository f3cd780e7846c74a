"""Detecting a peft adapter in the folder of a base, or in its place."""

from pathlib import Path

from ..files import parse_json

ADAPTER_CONFIG = "adapter_config.json"


def holds_adapter(folder: Path) -> bool:
    """Whether transformers would find an adapter in a folder.

    It would then load the base that the adapter names, or apply the adapter to the base in the folder.
    """
    return (folder / ADAPTER_CONFIG).is_file()


def adapter_instead(folder: Path) -> str | None:
    """Advice for a folder that contains an adapter but no base; None if it contains no adapter."""
    if not holds_adapter(folder):
        return None
    try:
        base = parse_json((folder / ADAPTER_CONFIG).read_text(encoding="utf8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    named = f" for the base {base!r}" if base else ""
    return (
        f"the folder {folder} contains no base, only a peft adapter{named}. To train a new adapter, name the base "
        f"itself; to build on this one, fold it into its base and name the new folder: "
        f"AutoPeftModelForCausalLM.from_pretrained({str(folder)!r})"
        f'.merge_and_unload().save_pretrained("FOLDER"), and save the tokenizer there, too.'
    )
