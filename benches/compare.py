#!/usr/bin/env python3
"""Lethe beside onnxruntime: the same models, inputs and threads, turn by turn in one run.

    python3 benches/compare.py [--lethe target/release/lethe] [--models target/models]
                               [--threads 1 2] [--rounds 5] [--seconds 1] [NAME...]

Both sides answer the same data set first, and their outputs must agree; then they are measured in
turns, so that a neighbour on the machine slows down both. A round takes the median of one side's
runs, the result is the median over the rounds. The ratio is onnxruntime's time by Lethe's: above 1
Lethe is faster. The last line is the geometric mean; the measurements go to
benches/record/<target>-<cpu>/<date>.csv. The exit status is 1 where outputs disagree.
"""

import argparse
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import python_environment  # noqa: E402

python_environment.enter()

import measurements  # noqa: E402
import numpy  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

# Model, data set, and what of it that is.
CASES = {
    "silero_vad": ("real/silero_vad", 0, "a chunk"),
    "minilm_fp32": ("real/minilm_fp32", 1, "1x128"),
    "minilm_int8": ("real/minilm_int8", 1, "1x128"),
    "minilm_qdq": ("real/minilm_qdq", 1, "1x128"),
    "squeezenet1_1": ("open/squeezenet1_1", 0, "1x3x224x224"),
    "mobilenet_v2": ("open/mobilenet_v2", 0, "1x3x224x224"),
    "resnet18": ("open/resnet18", 0, "1x3x224x224"),
    "bert_base": ("open/bert_base", 0, "1x128"),
    "gpt2_small": ("open/gpt2_small", 1, "a token"),
}
WARM_UP_RUNS = 3


def read_inputs(folder):
    """Inputs of a data set by name: the array, and the file it came from."""
    inputs = {}
    for path in folder.glob("input_*.pb"):
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        inputs[tensor.name] = (onnx.numpy_helper.to_array(tensor), path)
    return inputs


class Lethe:
    """The program, started anew for every measurement; it times its own runs."""

    def __init__(self, program, model, data_set, threads):
        self.program, self.model, self.data_set, self.threads = program, model, data_set, threads

    def command(self, *arguments):
        command = [self.program, *arguments, "--json", "--threads", str(self.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)

    def outputs(self, inputs):
        with tempfile.TemporaryDirectory() as folder:
            given = [f"--input={name}={path}" for name, (_, path) in inputs.items()]
            self.command("run", self.model, *given, "--output", folder)
            return {path.stem: numpy.load(path) for path in pathlib.Path(folder).glob("*.npy")}

    def median_ms(self, seconds):
        measured = self.command(
            "bench", self.model, "--data", self.data_set, "--seconds", str(seconds))
        return measured["median_ms"]


class OnnxRuntime:
    """The library in this process."""

    def __init__(self, model, inputs, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"])
        self.inputs = {name: array for name, (array, _) in inputs.items()}

    def outputs(self):
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, self.inputs)))

    def median_ms(self, seconds):
        for _ in range(WARM_UP_RUNS):
            self.session.run(None, self.inputs)
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            self.session.run(None, self.inputs)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3


def disagreement(expected, found, tolerance):
    """Why two sets of outputs are not the same within a tolerance, or None."""
    for name, want in expected.items():
        # As the program names files: what no file name may have becomes an underscore.
        got = found.get(re.sub(r'[/\\:*?"<>|]', "_", name))
        if got is None or got.shape != want.shape:
            return f"output {name!r}: {None if got is None else got.shape} for {want.shape}"
        if want.dtype.kind != "f":
            if not numpy.array_equal(got, want):
                return f"output {name!r} differs"
            continue
        want, got = want.astype(numpy.float64), got.astype(numpy.float64)
        rms = math.sqrt(numpy.mean(want * want)) if want.size else 0.0
        # Both sides fuse and reorder, hence twice what each may be off from the unfused reference.
        allowed = 2 * (tolerance.get("atol", 1e-7) + tolerance.get("atol_rms", 0.0) * rms
                       + tolerance.get("rtol", 1e-3) * abs(want))
        off = numpy.count_nonzero(~(abs(got - want) <= allowed))
        if off > 2 * tolerance.get("outliers", 0.0) * want.size:
            return f"output {name!r}: {off} of {want.size} elements differ"
    return None


def measure(case, threads, arguments):
    """One model at one number of threads, as a row of the record."""
    path, data_set, what = CASES[case]
    folder = arguments.models / path
    model = folder / "model.onnx"
    inputs = read_inputs(folder / f"test_data_set_{data_set}")
    tolerance = json.loads((folder / "data.json").read_text())
    lethe = Lethe(arguments.lethe, model, folder / f"test_data_set_{data_set}", threads)
    peer = OnnxRuntime(model, inputs, threads)
    problem = disagreement(peer.outputs(), lethe.outputs(inputs), tolerance)
    if problem:
        raise RuntimeError(f"the answers disagree: {problem}")
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(lethe.median_ms(arguments.seconds))
        theirs.append(peer.median_ms(arguments.seconds))
    # Rounds in which both were measured side by side; the median of their ratios is steadier than
    # the ratio of medians where the machine's speed drifts.
    ratio = statistics.median(their / our for our, their in zip(ours, theirs))
    return {
        "model": case, "input": what, "threads": threads,
        "lethe_ms": round(statistics.median(ours), 4),
        "onnxruntime_ms": round(statistics.median(theirs), 4),
        "ratio": round(ratio, 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; all by default")
    parser.add_argument("--lethe", type=pathlib.Path, default=ROOT / "target/release/lethe")
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "target/models")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in each round")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(CASES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    rows, failed = [], False
    print(f"onnxruntime {onnxruntime.__version__}, {measurements.cpu_name()}")
    print(f"{'model':14} {'input':12} threads   lethe ms     ort ms  ort/lethe")
    for case in arguments.names or CASES:
        if not (arguments.models / CASES[case][0] / "model.onnx").exists():
            print(f"{case:14} skipped: it is not in {arguments.models}")
            continue
        for threads in arguments.threads:
            try:
                row = measure(case, threads, arguments)
            except (RuntimeError, OSError) as error:
                print(f"{case:14} {threads} threads: FAILED: {error}")
                failed = True
                continue
            rows.append(row)
            print(f"{case:14} {row['input']:12} {threads:7} {row['lethe_ms']:10.3f} "
                  f"{row['onnxruntime_ms']:10.3f} {row['ratio']:10.2f}", flush=True)
    if rows:
        measurements.write_record(rows)
        mean = math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
        print(f"geometric mean of {len(rows)} ratios: {mean:.3f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
