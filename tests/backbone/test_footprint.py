"""The memory that a base takes, computed from its config."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import FAMILIES

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, LoraSettings, load_backbone, pace
from spacy_lsbillm.backbone.base_shape import shape_of
from spacy_lsbillm.backbone.footprint import BYTES, Work, footprint_of, kept_in_layer
from spacy_lsbillm.backbone.free_memory import free_memory
from spacy_lsbillm.backbone.pace import PREDICTION, TRAINING, measure_speed, operations_of, pieces_per_second
from spacy_lsbillm.errors import AdapterError, BaseError, SettingError

CPU = torch.device("cpu")
LORA = LoraSettings(r=4)
WORK = Work(batch_pieces=128, pass_pieces=64, length=32)
# Wide enough for what is counted to be more than what is not.
WIDE = {"hidden_size": 64, "intermediate_size": 160}


def settings(folder="base", lora=LORA, gradient_checkpointing=False, **base):
    return BackboneSettings(BaseSettings(str(folder), **base), lora=lora, gradient_checkpointing=gradient_checkpointing)


def read(folder, lora=LORA):
    return shape_of(folder, str(folder), lora)


@pytest.fixture(scope="module")
def shape(make_base):
    return read(make_base("llama", **WIDE))


@pytest.mark.parametrize("depth", [None, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_counts_the_parameters_of_a_loaded_model(make_base, family, depth):
    folder = make_base(family)
    shape = read(folder)
    backbone = load_backbone(settings(folder, depth=depth), device=CPU)
    adapter = sum(value.numel() for value in backbone.adapter_parameters().values())
    assert shape.adapter_parameters(depth) == adapter
    assert shape.parameters(depth) == sum(value.numel() for value in backbone.model.parameters()) - adapter
    if depth is None:
        assert shape.size.parameters == shape.parameters()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3_text", "phi3", "phi", "gpt2", "opt", "mixtral"])
def test_it_counts_what_the_backward_pass_keeps(make_base, family, dtype):
    folder = make_base(family, **WIDE)
    shape, backbone = read(folder), load_backbone(settings(folder, dtype=dtype), device=CPU)
    backbone.set_training(True)
    parameters = {value.untyped_storage().data_ptr() for value in backbone.model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            # The tensor as well, so that its memory is not used again.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(0, 250, (4, 32))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone.states(ids, torch.ones_like(ids))
    found = sum(size for size, _ in kept.values())
    estimated = ids.numel() * sum(kept_in_layer(shape, layer, WORK, BYTES[dtype]) for layer in shape.layers)
    assert 0.85 < estimated / found < 1.2


def test_weights_take_what_their_dtype_takes(make_base, shape):
    whole = footprint_of(shape, settings(), WORK)
    assert whole.weights == 4 * shape.parameters()
    assert footprint_of(shape, settings(dtype="bfloat16"), WORK).weights == 2 * shape.parameters()
    assert footprint_of(shape, settings(dtype="auto"), WORK).weights == 4 * shape.parameters()
    assert whole.adapter == 4 * shape.adapter_parameters()
    assert whole.optimizer == 4 * whole.adapter


def test_quantised_weights_take_what_bitsandbytes_stores(make_base):
    folder = make_base("llama", hidden_size=128, intermediate_size=256)
    shape = read(folder)
    for quantization in ("nf4", "int8"):
        backbone = load_backbone(settings(folder, quantization=quantization), device=CPU)
        held = {id(value): value.nbytes for value in backbone.model.parameters() if not value.requires_grad}
        estimated = footprint_of(shape, settings(quantization=quantization), WORK).weights
        # Scales are not among the parameters.
        assert sum(held.values()) <= estimated < 1.1 * sum(held.values())


def test_less_of_everything_takes_less(shape):
    def training(work=WORK, shape=shape, **changes):
        return footprint_of(shape, settings(lora=shape.lora, **changes), work).training

    depths = [training(depth=depth) for depth in (1, 2, 3, 4)]
    assert depths == sorted(set(depths))
    assert training(dtype="bfloat16", quantization="nf4") < training(dtype="bfloat16") < training()
    assert training(quantization="nf4") < training(quantization="int8") < training()
    assert training(gradient_checkpointing=True) < training()
    assert training() < training(replace(WORK, batch_pieces=256)) < training(replace(WORK, batch_pieces=256, repeat=1))
    assert training(replace(WORK, device="gpu")) < training()


def test_a_frozen_base_keeps_nothing_for_a_backward_pass(make_base, shape):
    frozen = read(make_base("llama", **WIDE), None)
    found = footprint_of(frozen, settings(lora=None), WORK)
    assert (found.adapter, found.optimizer, found.second_copy) == (0, 0, 0)
    assert found.training == found.prediction < footprint_of(shape, settings(), WORK).training


def test_an_adapter_on_fewer_modules_is_smaller(make_base, shape):
    folder = make_base("llama", **WIDE)
    fewer = read(folder, replace(LORA, target_modules=("q_proj", "v_proj")))
    assert fewer.adapter_parameters() < shape.adapter_parameters()
    assert footprint_of(fewer, settings(), WORK).training < footprint_of(shape, settings(), WORK).training
    assert read(folder, replace(LORA, r=8)).adapter_parameters() == 2 * shape.adapter_parameters()
    with pytest.raises(AdapterError, match="names 'c_attn'"):
        read(folder, replace(LORA, target_modules=("c_attn",)))


def test_no_weights_are_needed(make_base, tmp_path):
    config = (make_base("qwen2") / "config.json").read_text(encoding="utf8")
    (tmp_path / "config.json").write_text(config, encoding="utf8")
    assert read(tmp_path).parameters() == read(make_base("qwen2")).parameters()


def test_it_refuses_what_it_cannot_compute(tmp_path, shape):
    with pytest.raises(BaseError, match=r"config\.json"):
        read(tmp_path)
    with pytest.raises(SettingError, match="depth = 9 is more than the 4 layers"):
        footprint_of(shape, settings(depth=9), WORK)
    for wrong in ({"batch_pieces": 0}, {"repeat": -1}, {"pass_pieces": True}, {"device": "tpu"}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} = "):
            replace(WORK, **wrong)


def test_operations_are_those_of_the_weights(shape):
    found = operations_of(shape, settings(), replace(WORK, length=1))
    weights = sum(layer.used for layer in shape.layers)
    attention = 4 * sum(layer.attended for layer in shape.layers)
    assert found[PREDICTION].base == 2 * weights + attention
    assert found[TRAINING].base == 4 * weights + 3 * attention
    assert found[TRAINING].adapter == 3 * found[PREDICTION].adapter == 6 * shape.adapter_parameters()
    again = operations_of(shape, settings(gradient_checkpointing=True), replace(WORK, length=1))
    assert again[TRAINING].base == found[TRAINING].base + found[PREDICTION].base
    assert operations_of(shape, settings(), replace(WORK, length=1, repeat=1))[PREDICTION].adapter == (
        2 * found[PREDICTION].adapter
    )


def test_a_piece_of_a_mixture_of_experts_meets_some_experts(make_base):
    shape = read(make_base("mixtral"))
    weights = sum(layer.linear + layer.other for layer in shape.layers)
    met = sum(layer.used for layer in shape.layers)
    assert weights / 2 < met < weights


def test_speed_is_measured(shape, monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 0.02)
    speed = measure_speed(shape, "float32", WORK, CPU)
    assert speed.base > 1e6
    found = operations_of(shape, settings(), WORK)
    assert pieces_per_second(found[TRAINING], speed, TRAINING) < pieces_per_second(found[PREDICTION], speed, PREDICTION)


def test_free_memory_is_found_on_systems_without_proc(monkeypatch):
    def nothing(path, **options):
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", nothing)
        assert free_memory(CPU) > 0
