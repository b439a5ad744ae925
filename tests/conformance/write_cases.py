#!/usr/bin/env python3
"""Writes the backend tests of the ONNX standard to a folder, one folder a test.

    python3 tests/conformance/write_cases.py FOLDER

They come out of the package `onnx` that scripts/requirements.txt pins, in the layout that
`lethe verify` reads:

    FOLDER/<kind>/<test>/model.onnx
    FOLDER/<kind>/<test>/data.json                          rtol, atol
    FOLDER/<kind>/<test>/test_data_set_<k>/{input,output}_<i>.pb

`kind` is one of node, simple, pytorch-converted, pytorch-operator and light. A folder that is
complete for this version of ONNX stays as it is.
"""

import json
import math
import pathlib
import shutil
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import python_environment  # noqa: E402

python_environment.enter()

import ml_dtypes  # noqa: E402
import numpy  # noqa: E402
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402

DATA = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data"
KINDS_IN_FILES = ("simple", "pytorch-converted", "pytorch-operator")
# Raised when this script writes something else than before.
LAYOUT = 1


def message(value, info):
    """The protobuf message of a test's value for the input or output that `info` describes."""
    if isinstance(value, onnx.TensorProto):
        value.name = info.name
        return value
    match info.type.WhichOneof("value"):
        case "optional_type":
            there = value is None or isinstance(value, (list, numpy.ndarray))
            return numpy_helper.from_optional(value if there else numpy.asarray(value), info.name)
        case "sequence_type":
            return numpy_helper.from_list(value, info.name)
        case "map_type":
            return numpy_helper.from_dict(value, info.name)
        case _ if isinstance(value, list):
            return numpy_helper.from_list(value, info.name)
        case _:
            return numpy_helper.from_array(numpy.asarray(value), info.name)


def write_values(folder, prefix, values, infos):
    for i, (value, info) in enumerate(zip(values, infos)):
        (folder / f"{prefix}_{i}.pb").write_bytes(message(value, info).SerializeToString())


def write_node_tests(folder):
    """Tests of single operators, whose data are computed by the package's references."""
    for case in load_model_tests(kind="node"):
        test = folder / case.name
        test.mkdir(parents=True)
        (test / "model.onnx").write_bytes(case.model.SerializeToString())
        (test / "data.json").write_text(json.dumps({"rtol": case.rtol, "atol": case.atol}))
        for k, (inputs, outputs) in enumerate(case.data_sets):
            data_set = test / f"test_data_set_{k}"
            data_set.mkdir()
            write_values(data_set, "input", inputs, case.model.graph.input)
            write_values(data_set, "output", outputs, case.model.graph.output)


def write_light_tests(folder):
    """Whole models without their weights. Their input is 0 to 1 in even steps, as in the suite."""
    for model in sorted((DATA / "light").glob("*.onnx")):
        data_set = folder / model.stem / "test_data_set_0"
        data_set.mkdir(parents=True)
        shutil.copy(model, folder / model.stem / "model.onnx")
        shutil.copy(DATA / "light" / f"{model.stem}_output_0.pb", data_set / "output_0.pb")
        graph = onnx.load(model).graph
        weights = {weight.name for weight in graph.initializer}
        (info,) = [given for given in graph.input if given.name not in weights]
        shape = [dimension.dim_value or 1 for dimension in info.type.tensor_type.shape.dim]
        count = math.prod(shape)
        value = (numpy.arange(count) / count).astype(numpy.float32).reshape(shape)
        write_values(data_set, "input", [value], [info])
        (folder / model.stem / "data.json").write_text(json.dumps({"rtol": 1e-3, "atol": 1e-7}))


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    # Written last, so that an interrupted folder is begun again.
    stamp, wanted = folder / "version", f"onnx {onnx.__version__}, ml_dtypes {ml_dtypes.__version__}, layout {LAYOUT}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    warnings.filterwarnings("ignore")
    shutil.rmtree(folder, ignore_errors=True)
    write_node_tests(folder / "node")
    write_light_tests(folder / "light")
    for kind in KINDS_IN_FILES:
        for test in sorted((DATA / kind).iterdir()):
            if (test / "model.onnx").exists():
                shutil.copytree(test, folder / kind / test.name)
    stamp.write_text(wanted)
    print(f"{len(list(folder.glob('*/*/model.onnx')))} tests of {wanted} written")


if __name__ == "__main__":
    main()
