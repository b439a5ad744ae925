"""Expected outputs of the embedded models, in the layout of the ONNX backend tests.

The outputs are those of onnxruntime on one thread with graph optimisations disabled.
"""

import json
import shutil

import onnxruntime
from onnx import numpy_helper

# |got - want| <= atol + rtol * |want|
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


def session(model_path):
    """An onnxruntime session that computes the graph as it is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])


def write_data_sets(folder, data_sets):
    """Writes data.json and one test_data_set_<k> for each element of `data_sets` ({name: array})."""
    model = session(folder / "model.onnx")
    (folder / "data.json").write_text(json.dumps(TOLERANCE) + "\n")
    for index, feeds in enumerate(data_sets):
        data_set = folder / f"test_data_set_{index}"
        shutil.rmtree(data_set, ignore_errors=True)
        data_set.mkdir()
        outputs = model.run(None, feeds)
        for kind, values, arrays in (
            ("input", model.get_inputs(), [feeds[value.name] for value in model.get_inputs()]),
            ("output", model.get_outputs(), outputs),
        ):
            for position, (value, array) in enumerate(zip(values, arrays)):
                tensor = numpy_helper.from_array(array, value.name)
                (data_set / f"{kind}_{position}.pb").write_bytes(tensor.SerializeToString())
