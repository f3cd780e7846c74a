"""Multiplying weights in eight bits on a CPU: this package's layer compared with the alternatives.

    OMP_NUM_THREADS=1 python -m benchmarks.int8

This takes about three minutes on one core. The shapes are those of SmolLM2's linear layers. ONNX Runtime and OpenVINO
are measured if `onnx`, `onnxruntime` and `openvino` are installed. All take turns on the same states. The result is how
much faster than float32 each one is (medians), and its relative error. One of the states is fifty times as large as the
others, which is mild for a language model; the errors are those of the other states.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.record import ROOT, circumstances, write_result
from spacy_lsbillm.backbone.int8 import Int8Linear, quantised

SHAPES = ((576, 576), (576, 1536), (1536, 576), (576, 192))
ROWS = (64, 512, 2048)
ROUNDS = 7
OUTLIER = 50
RESULT = ROOT / "benchmarks/results/int8.json"
Way = Callable[[torch.Tensor], torch.Tensor]


def ways(linear: torch.nn.Linear) -> dict[str, Way]:
    """Layers that compute approximately the same as a given one, by name."""
    weight = linear.weight.detach()
    numbers, scale = quantised(weight)
    dynamic = torch.ao.quantization.quantize_dynamic(
        torch.nn.Sequential(linear), {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
    )
    found: dict[str, Way] = {"this package": Int8Linear(numbers, scale), "torch quantize_dynamic": dynamic}
    found |= onnx_ways(weight, numbers, scale)
    found |= openvino_ways(numbers, scale)
    return found


def onnx_ways(weight: torch.Tensor, numbers: torch.Tensor, scale: torch.Tensor) -> dict[str, Way]:
    """The layers of ONNX Runtime; empty if it is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rows, width = weight.shape

    def session(kind: str, domain: str, **given: np.ndarray) -> Way:
        node = helper.make_node(kind, ["x", *given], ["y"], domain=domain)
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows])],
            [numpy_helper.from_array(value, name) for name, value in given.items()],
        )
        versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions)
        model.ir_version = 8
        made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(made.run(None, {"x": x.numpy()})[0])

    unsigned = (numbers.T.to(torch.int16) + 128).to(torch.uint8).contiguous().numpy()
    return {
        "ONNX Runtime float32": session("MatMul", "", w=weight.T.contiguous().numpy()),
        "ONNX Runtime DynamicQuantizeMatMul": session(
            "DynamicQuantizeMatMul",
            "com.microsoft",
            w=unsigned,
            s=scale.numpy(),
            z=np.full(rows, 128, dtype=np.uint8),
        ),
    }


def openvino_ways(numbers: torch.Tensor, scale: torch.Tensor) -> dict[str, Way]:
    """The layer of OpenVINO; empty if it is not installed."""
    try:
        import openvino
        from openvino import opset13
    except ImportError:
        return {}
    width = numbers.shape[1]
    inputs = opset13.parameter([-1, width], np.float32)
    weight = opset13.multiply(
        opset13.convert(opset13.constant(numbers.numpy()), "f32"), opset13.constant(scale.numpy()[:, None])
    )
    model = openvino.Model([opset13.matmul(inputs, weight, False, True)], [inputs])
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": width,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return {"OpenVINO, int8 weights": lambda x: torch.from_numpy(request.infer({0: x.numpy()})[0])}


def measure(shape: tuple[int, int], rows: int) -> dict[str, Any]:
    """Measure one line of the result.

    shape (tuple[int, int]): The width of the inputs and of the outputs.
    rows (int): The number of states that are multiplied at once.
    """
    torch.manual_seed(0)
    linear = torch.nn.Linear(*shape, bias=False).eval()
    inputs = torch.randn(rows, shape[0])
    inputs[0] *= OUTLIER
    layers = {"float32": linear, **ways(linear)}
    exact = linear(inputs)[1:]
    errors = {name: float((way(inputs)[1:] - exact).norm() / exact.norm()) for name, way in layers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    # A small product is repeated, because disturbances by other processes last longer than one of them.
    times = max(ROWS) // rows
    for _ in range(ROUNDS):
        for name, way in layers.items():
            begin = perf_counter()
            for _ in range(times):
                way(inputs)
            seconds[name].append((perf_counter() - begin) / times)
    base = statistics.median(seconds["float32"])
    return {
        "shape": list(shape),
        "rows": rows,
        "float32_ms": round(base * 1000, 2),
        "times_float32": {name: round(base / statistics.median(s), 2) for name, s in seconds.items()},
        "error": {name: round(error, 4) for name, error in errors.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with torch.inference_mode():
        for shape in SHAPES:
            for rows in ROWS:
                lines.append(measure(shape, rows))
                print(lines[-1], flush=True)
    write_result(args.output, {**circumstances(), "lines": lines})


if __name__ == "__main__":
    main()
