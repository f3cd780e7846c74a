"""Ways to damage a folder of files, by accident and on purpose."""

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Random = random.Random
# Values for settings, many of them of a wrong type.
VALUES: list[Any] = [None, -1, 0, 1, 7, 2**31, 2**63, 10**30, 1e308, -0.5, True, "", "x", "../x", [], {}, [1], {"a": 1}]
DTYPES = ["F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X9", "", "f32"]
PIECE = 4096


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.mark, "w")


# A module that creates the same file when it is imported.
MODULE = "open({mark!r}, 'w').close()\nfrom transformers import *\n"


def write(path: Path, content: bytes) -> None:
    """Write a file in place of whatever is there."""
    remove(path)
    path.write_bytes(content)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cut(path: Path, draw: Random) -> str:
    """Keep only the beginning."""
    content = path.read_bytes()
    size = draw.choice([0, 1, 7, 8, len(content) // 2, max(0, len(content) - 1), draw.randrange(len(content) + 1)])
    write(path, content[:size])
    return f"cut to {size} of {len(content)} bytes"


def flip(path: Path, draw: Random) -> str:
    """Flip one bit, more often near the beginning, where headers are."""
    content = bytearray(path.read_bytes() or b"\0")
    place = draw.randrange(min(len(content), draw.choice([8, 400, len(content)])))
    content[place] ^= 1 << draw.randrange(8)
    write(path, bytes(content))
    return f"a bit of byte {place} of {len(content)} flipped"


def lengthen(path: Path, draw: Random) -> str:
    """Append something."""
    more = draw.choice([b"\0", b"\n", b"}", b"x" * 1000, bytes(2**20)])
    write(path, path.read_bytes() + more)
    return f"{len(more)} bytes appended"


def overwrite(path: Path, draw: Random) -> str:
    """Overwrite a block with zeros, as a failing disk does, or with noise."""
    content = bytearray(path.read_bytes() or b"\0")
    begin = draw.randrange(len(content))
    size = min(len(content) - begin, draw.choice([1, 16, 512, PIECE]))
    content[begin : begin + size] = bytes(size) if draw.random() < 0.5 else draw.randbytes(size)
    write(path, bytes(content))
    return f"{size} bytes at {begin} overwritten"


def lose(path: Path, draw: Random) -> str:
    """Remove the file, or put a folder in its place."""
    remove(path)
    if draw.random() < 0.5:
        return "removed"
    path.mkdir()
    return "a folder in its place"


def link(path: Path, draw: Random) -> str:
    """Put a link in its place: to nowhere, to itself, to an endless device, or to a folder."""
    target = draw.choice(["nowhere", path.name, "/dev/zero", "/dev/null", "/proc/self/environ", "..", "/"])
    remove(path)
    path.symlink_to(target)
    return f"a link to {target}"


def move(path: Path, draw: Random) -> str:
    """Put a link to the same content in its place, which is not an error."""
    other = path.with_name(f"{path.name}.elsewhere")
    path.rename(other)
    path.symlink_to(other.name if draw.random() < 0.5 else other.resolve())
    return "a link to the same file under another name"


def nest(path: Path, draw: Random) -> str:
    """Write very deeply nested JSON."""
    opening = draw.choice(["[", '{"a":'])
    write(path, (opening * draw.choice([10**3, 10**5])).encode())
    return "very deeply nested brackets"


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [before] if before else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += _paths(part, (*before, key))
    return found


def change_value(path: Path, draw: Random) -> str:
    """Change or remove one value in JSON."""
    content = json.loads(path.read_text(encoding="utf8"))
    places = [place for place in _paths(content) if len(place) < 4]
    if not places:
        return flip(path, draw)
    # Prefer settings over the many entries of a vocabulary.
    shallow = [place for place in places if len(place) == 1]
    *before, last = draw.choice(shallow if draw.random() < 0.6 else places)
    block = content
    for key in before:
        block = block[key]
    name = ".".join(map(str, [*before, last]))
    if draw.random() < 0.3 and isinstance(block, dict):
        del block[last]
        change = f"{name} is not there"
    else:
        block[last] = draw.choice(VALUES)
        change = f"{name} = {block[last]!r}"
    write(path, json.dumps(content).encode())
    return change


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join_parts(header: bytes, data: bytes, size: int | None = None) -> bytes:
    """The bytes of a safetensors file.

    size (int | None): The size of the header that the file declares; None for the true one.
    """
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def change_header(path: Path, draw: Random) -> str:
    """Change the header of a safetensors file."""
    header, data = split(path)
    name = draw.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    how = draw.choice(["size", "large", "dtype", "shape", "offsets", "name", "value", "deep", "twice", "swap"])
    size = None
    if how == "size":
        size = draw.choice([0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
    elif how == "large":
        header["__metadata__"] = {"x": "x" * draw.choice([10**6, 10**8])}
    elif how == "dtype":
        entry["dtype"] = draw.choice(DTYPES)
    elif how == "shape":
        entry["shape"] = draw.choice([[], [0], [2**62], [2**31, 2**31, 4], [-1, -1], [1, *entry["shape"]], "x", [1.5]])
    elif how == "offsets":
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = draw.choice(
            [[end, begin], [0, 2**62], [-8, end], [begin + 4, end + 4], [begin], [0, 0]]
        )
    elif how == "name":
        header[draw.choice(["", "../x", "x" * 10**6, name + "\0", name.upper()])] = header.pop(name)
    elif how == "value":
        header[name] = draw.choice([None, 1, "x", [], {}])
    elif how == "swap":
        other = draw.choice([key for key in header if key != "__metadata__"])
        header[name], header[other] = header[other], header[name]
    encoded = json.dumps(header).encode()
    if how == "deep":
        encoded = b'{"a":' * 10**5
    elif how == "twice":
        encoded = encoded[:-1] + b", " + encoded[1:]
    write(path, join_parts(encoded, data, size))
    return f"its header has another {how} ({name})"


def plant_pickle(path: Path, draw: Random, mark: Path) -> str:
    """Put a pickle in its place, or beside it under the name that older tools used."""
    payload = {"weight": Payload(mark), "settings": Payload(mark), "model": {}}
    beside = {"adapter_model.safetensors": "adapter_model.bin", "model.safetensors": "pytorch_model.bin"}.get(path.name)
    target = path
    if beside is not None and draw.random() < 0.6:
        target = path.with_name(beside)
        if draw.random() < 0.7:
            remove(path)
    remove(target)
    if draw.random() < 0.5:
        torch.save(payload, target)
    else:
        target.write_bytes(pickle.dumps(payload))
    return f"a pickle as {target.name}"


def plant_code(path: Path, draw: Random, mark: Path) -> str:
    """Put code beside a config that names it."""
    content = json.loads(path.read_text(encoding="utf8"))
    module = path.with_name("planted.py")
    module.write_text(MODULE.format(mark=str(mark)), encoding="utf8")
    content["auto_map"] = draw.choice(
        [
            {"AutoConfig": "planted.LlamaConfig", "AutoModelForCausalLM": "planted.LlamaForCausalLM"},
            {"AutoTokenizer": ["planted.PreTrainedTokenizerFast", "planted.PreTrainedTokenizerFast"]},
            {"AutoTokenizer": "planted.PreTrainedTokenizerFast"},
        ]
    )
    if draw.random() < 0.3:
        content["trust_remote_code"] = True
    if draw.random() < 0.3:
        content.pop("model_type", None)
    if draw.random() < 0.3:
        content["tokenizer_class"] = "PlantedTokenizer"
    write(path, json.dumps(content).encode())
    return f"code beside it, in {module.name}, which it names"


# Files that libraries look for, although they need not exist.
READ = ["added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json", "tokenizer.model"]
READ += ["adapter_model.bin", "pytorch_model.bin", "model.safetensors.index.json", "generation_config.json"]


def add(path: Path, draw: Random) -> str:
    """Put a file beside it."""
    name = draw.choice(READ)
    if path.with_name(name).exists():
        return lengthen(path, draw)
    content = {"added_tokens.json": b'{"play": 5}', "special_tokens_map.json": b'{"bos_token": "play"}'}.get(
        name, b"{}"
    )
    write(path.with_name(name), content)
    return f"{name} put beside it"


def plant_template(path: Path, draw: Random, mark: Path) -> str:
    """Put a chat template that would run code into a config."""
    content = json.loads(path.read_text(encoding="utf8"))
    content["chat_template"] = "{{ ''.__class__.__mro__[1].__subclasses__() }}" * draw.choice([1, 1000])
    write(path, json.dumps(content).encode())
    return "a template that would run code"


ANY: list[Callable[[Path, Random], str]] = [cut, flip, flip, flip, lengthen, overwrite, lose, link, move, add]


def damage(path: Path, draw: Random, mark: Path) -> str:
    """Damage a file in a way that suits it.

    mark (Path): A file that exists afterwards if code in the damaged file was run.
    RETURNS (str): A description of the damage.
    """
    ways: list[Callable[[], str]] = [lambda way=way: way(path, draw) for way in ANY]
    if path.suffix == ".json":
        ways += [lambda: change_value(path, draw)] * 5 + [lambda: nest(path, draw)]
        if "config" in path.name:
            ways += [lambda: plant_code(path, draw, mark)] * 2 + [lambda: plant_template(path, draw, mark)]
    if path.suffix == ".safetensors":
        ways += [lambda: change_header(path, draw)] * 5
    if path.suffix in (".safetensors", ".pt", ".bin") or path.name == "model":
        ways += [lambda: plant_pickle(path, draw, mark)] * 3
    return f"{path.name}: {draw.choice(ways)()}"


def swap(paths: Sequence[Path], draw: Random) -> str:
    """Swap the contents of two files."""
    one, other = draw.sample(list(paths), 2)
    content = one.read_bytes()
    write(one, other.read_bytes())
    write(other, content)
    return f"{one.name} and {other.name} swapped"


def files_of(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted."""
    return sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
