"""Ways to damage a folder of files: by accident, and on purpose."""

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
# Numbers and what stands where one is expected.
VALUES: list[Any] = [None, -1, 0, 1, 7, 2**31, 2**63, 10**30, 1e308, -0.5, True, "", "x", "../x", [], {}, [1], {"a": 1}]
DTYPES = ["F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X9", "", "f32"]
PIECE = 4096


class Payload:
    """What leaves a file if it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.mark, "w")


# What leaves the same file if it is imported.
MODULE = "open({mark!r}, 'w').close()\nfrom transformers import *\n"


def write(path: Path, content: bytes) -> None:
    """In place of whatever is there."""
    remove(path)
    path.write_bytes(content)


def remove(path: Path) -> None:
    """A file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cut(path: Path, draw: Random) -> str:
    """Leave the beginning."""
    content = path.read_bytes()
    size = draw.choice([0, 1, 7, 8, len(content) // 2, max(0, len(content) - 1), draw.randrange(len(content) + 1)])
    write(path, content[:size])
    return f"cut to {size} of {len(content)} bytes"


def flip(path: Path, draw: Random) -> str:
    """One bit, more often in the beginning, where headers are."""
    content = bytearray(path.read_bytes() or b"\0")
    place = draw.randrange(min(len(content), draw.choice([8, 400, len(content)])))
    content[place] ^= 1 << draw.randrange(8)
    write(path, bytes(content))
    return f"a bit of byte {place} of {len(content)} flipped"


def lengthen(path: Path, draw: Random) -> str:
    """Put something behind the end."""
    more = draw.choice([b"\0", b"\n", b"}", b"x" * 1000, bytes(2**20)])
    write(path, path.read_bytes() + more)
    return f"{len(more)} bytes behind the end"


def overwrite(path: Path, draw: Random) -> str:
    """A block of zeros, as a disk leaves it, or of noise."""
    content = bytearray(path.read_bytes() or b"\0")
    begin = draw.randrange(len(content))
    size = min(len(content) - begin, draw.choice([1, 16, 512, PIECE]))
    content[begin : begin + size] = bytes(size) if draw.random() < 0.5 else draw.randbytes(size)
    write(path, bytes(content))
    return f"{size} bytes at {begin} overwritten"


def lose(path: Path, draw: Random) -> str:
    """Not there, or a folder in its place."""
    remove(path)
    if draw.random() < 0.5:
        return "removed"
    path.mkdir()
    return "a folder in its place"


def link(path: Path, draw: Random) -> str:
    """A link in its place: to nowhere, to itself, to what never ends, to a folder."""
    target = draw.choice(["nowhere", path.name, "/dev/zero", "/dev/null", "/proc/self/environ", "..", "/"])
    remove(path)
    path.symlink_to(target)
    return f"a link to {target}"


def moved(path: Path, draw: Random) -> str:
    """A link to the same content elsewhere: nothing is wrong with it."""
    other = path.with_name(f"{path.name}.elsewhere")
    path.rename(other)
    path.symlink_to(other.name if draw.random() < 0.5 else other.resolve())
    return "a link to the same file under another name"


def deep(path: Path, draw: Random) -> str:
    """JSON that is nested without end."""
    opening = draw.choice(["[", '{"a":'])
    write(path, (opening * draw.choice([10**3, 10**5])).encode())
    return "brackets without end"


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [before] if before else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += _paths(part, (*before, key))
    return found


def change_value(path: Path, draw: Random) -> str:
    """JSON in which one value is another, or not there."""
    said = json.loads(path.read_text(encoding="utf8"))
    places = [place for place in _paths(said) if len(place) < 4]
    if not places:
        return flip(path, draw)
    # Settings more often than the many entries of a vocabulary.
    shallow = [place for place in places if len(place) == 1]
    *before, last = draw.choice(shallow if draw.random() < 0.6 else places)
    block = said
    for key in before:
        block = block[key]
    name = ".".join(map(str, [*before, last]))
    if draw.random() < 0.3 and isinstance(block, dict):
        del block[last]
        told = f"{name} is not there"
    else:
        block[last] = draw.choice(VALUES)
        told = f"{name} = {block[last]!r}"
    write(path, json.dumps(said).encode())
    return told


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: bytes, data: bytes, size: int | None = None) -> bytes:
    """A safetensors file.

    size (int | None): What it says of its header; None: the truth.
    """
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def change_header(path: Path, draw: Random) -> str:
    """A safetensors file whose header says something else."""
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
    write(path, joined(encoded, data, size))
    return f"its header has another {how} ({name})"


def plant_pickle(path: Path, draw: Random, mark: Path) -> str:
    """A pickle in its place, or beside it under the name that older tools used."""
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
    """Code beside a config that names it."""
    said = json.loads(path.read_text(encoding="utf8"))
    module = path.with_name("planted.py")
    module.write_text(MODULE.format(mark=str(mark)), encoding="utf8")
    said["auto_map"] = draw.choice(
        [
            {"AutoConfig": "planted.LlamaConfig", "AutoModelForCausalLM": "planted.LlamaForCausalLM"},
            {"AutoTokenizer": ["planted.PreTrainedTokenizerFast", "planted.PreTrainedTokenizerFast"]},
            {"AutoTokenizer": "planted.PreTrainedTokenizerFast"},
        ]
    )
    if draw.random() < 0.3:
        said["trust_remote_code"] = True
    if draw.random() < 0.3:
        said.pop("model_type", None)
    if draw.random() < 0.3:
        said["tokenizer_class"] = "PlantedTokenizer"
    write(path, json.dumps(said).encode())
    return f"code beside it, in {module.name}, which it names"


# What libraries look for, whether or not it was ever there.
READ = ["added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json", "tokenizer.model"]
READ += ["adapter_model.bin", "pytorch_model.bin", "model.safetensors.index.json", "generation_config.json"]


def add(path: Path, draw: Random) -> str:
    """A file beside it."""
    name = draw.choice(READ)
    if path.with_name(name).exists():
        return lengthen(path, draw)
    content = {"added_tokens.json": b'{"play": 5}', "special_tokens_map.json": b'{"bos_token": "play"}'}.get(
        name, b"{}"
    )
    write(path.with_name(name), content)
    return f"{name} put beside it"


def plant_template(path: Path, draw: Random, mark: Path) -> str:
    """A template for chats that would run code."""
    said = json.loads(path.read_text(encoding="utf8"))
    said["chat_template"] = "{{ ''.__class__.__mro__[1].__subclasses__() }}" * draw.choice([1, 1000])
    write(path, json.dumps(said).encode())
    return "a template that would run code"


ANY: list[Callable[[Path, Random], str]] = [cut, flip, flip, flip, lengthen, overwrite, lose, link, moved, add]


def damage(path: Path, draw: Random, mark: Path) -> str:
    """Damage a file in a way that suits it.

    mark (Path): What is there afterwards if code in it was run.
    RETURNS (str): What was done, in words.
    """
    ways: list[Callable[[], str]] = [lambda way=way: way(path, draw) for way in ANY]
    if path.suffix == ".json":
        ways += [lambda: change_value(path, draw)] * 5 + [lambda: deep(path, draw)]
        if "config" in path.name:
            ways += [lambda: plant_code(path, draw, mark)] * 2 + [lambda: plant_template(path, draw, mark)]
    if path.suffix == ".safetensors":
        ways += [lambda: change_header(path, draw)] * 5
    if path.suffix in (".safetensors", ".pt", ".bin") or path.name == "model":
        ways += [lambda: plant_pickle(path, draw, mark)] * 3
    return f"{path.name}: {draw.choice(ways)()}"


def swap(paths: Sequence[Path], draw: Random) -> str:
    """Two files have each other's names."""
    one, other = draw.sample(list(paths), 2)
    content = one.read_bytes()
    write(one, other.read_bytes())
    write(other, content)
    return f"{one.name} and {other.name} swapped"


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, sorted."""
    return sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
