"""One contestant of providers.py: a process that runs a net on one tensor, once per line.

    python -m benchmarks.provider NAME NET INPUT OUTPUT CALIBRATION

It runs in an environment of its own, so it imports none of our packages. It reads lines from
standard input. The first answer, a line of JSON, has the processor's `seconds` until the net was
loaded and had run once, or says what the processor `lacks`; each further one those of one run.
Tensors are `.npy` files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: By name: what a processor must be able to do, and OpenVINO's word for the precision.
PRECISIONS = {
    "openvino float32": ("FP32", "f32"),
    "openvino bfloat16": ("BF16", "bf16"),
    "openvino float16": ("FP16", "f16"),
    "openvino int8": ("FP32", "f32"),
}
Run = Callable[[Any], Any]


def onnxruntime(net: Path) -> Run:
    """Return the net as the engines load it; see common/separation/nets.py."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    session = onnxruntime.InferenceSession(str(net), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def openvino(name: str, net: Path, calibration: Path) -> Run | None:
    """Return the net on OpenVINO; None where the processor lacks the precision."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports the import
    import openvino

    ability, precision = PRECISIONS[name]
    core = openvino.Core()
    if ability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    model = core.read_model(net)
    if name == "openvino int8":
        os.environ["NNCF_CI"] = "1"  # it would report its use to its maker
        import nncf

        # Static, of weights and activations.
        tensors = list(np.load(calibration))
        model = nncf.quantize(
            model,
            nncf.Dataset(tensors, lambda tensor: {0: tensor}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(tensors),
        )
    how = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", {**how, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda tensor: request.infer({0: tensor}, share_inputs=True, share_outputs=True)[0]


def main() -> None:
    """Load, report it, and run once per line."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    name, net, given, result, calibration = sys.argv[1:]
    is_openvino = name in PRECISIONS
    run = openvino(name, Path(net), Path(calibration)) if is_openvino else onnxruntime(Path(net))
    if run is None:
        answers.write(json.dumps({"lacks": PRECISIONS[name][0]}) + "\n")
        sys.stdin.read()  # its memory is read before it ends
        return
    tensor = np.load(given)
    np.save(result, run(tensor))  # the first run is slower than the others
    answers.write(json.dumps({"seconds": time.process_time()}) + "\n")
    for _ in sys.stdin:
        began = time.process_time()
        run(tensor)
        answers.write(json.dumps({"seconds": time.process_time() - began}) + "\n")


if __name__ == "__main__":
    main()
