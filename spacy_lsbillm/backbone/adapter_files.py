"""A peft adapter among the files of a base, or in its place."""

from pathlib import Path

from ..files import parse_json

ADAPTER_CONFIG = "adapter_config.json"


def holds_adapter(folder: Path) -> bool:
    """Whether transformers would see an adapter in a folder: it then loads the base that the adapter names, or puts the
    adapter on the one in the folder."""
    return (folder / ADAPTER_CONFIG).is_file()


def adapter_instead(folder: Path) -> str | None:
    """What to do with a folder that lacks a base and holds an adapter, in words; None if it holds none."""
    if not holds_adapter(folder):
        return None
    try:
        base = parse_json((folder / ADAPTER_CONFIG).read_text(encoding="utf8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    named = f" for the base {base!r}" if base else ""
    return (
        f"the folder {folder} holds no base but a peft adapter{named}. Name the base itself, for an adapter of its "
        f"own; or fold this one into it, and name the new folder: "
        f"AutoPeftModelForCausalLM.from_pretrained({str(folder)!r})"
        f'.merge_and_unload().save_pretrained("FOLDER"), and the tokenizer likewise.'
    )
