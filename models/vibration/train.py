#!/usr/bin/env python3
"""Makes the embedded `vibration` model: is a machine's vibration as it always was?

    python3 models/vibration/train.py            trains, writes model.onnx, data sets and samples
    python3 models/vibration/train.py --check    measures the committed model again

The signal is made here: 256 samples of an accelerometer on a motor. A healthy one shows its shaft
speed and two harmonics, the mesh of its gears and noise. The model is an autoencoder that has
only seen healthy machines: it presses a window through a bottleneck of 14 numbers and rebuilds it.
What it cannot rebuild it has not seen before, so the mean squared error, divided by that which
999 of 1,000 healthy windows stay below, is the anomaly score: above 1 is worth a look.

Seeds are fixed: the same machine makes the same model again, bit for bit. Another one may differ
in the last bits, since the order of additions in a matrix product belongs to the processor.
"""

import argparse
import json
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "scripts")]
import python_environment

python_environment.enter()
# One thread: the models are too small for more, and the result must not depend on their number.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from onnx import helper

import network
import reference

SAMPLES = 256
SAMPLE_RATE_HZ = 2048
STEPS, BATCH, RATE = 12_000, 64, 2e-3
BOTTLENECK = 14
HEALTHY_QUANTILE = 0.999
FAULTS = ("imbalance", "misalignment", "looseness", "bearing", "gear")
# `--check` and training fail below this.
LEAST_AREA_UNDER_CURVE = 0.97


def vibration(generator, count, fault=None):
    """`count` windows [count, 1, SAMPLES] in g of machines that are healthy or have one fault."""
    def each(low, high):
        return generator.uniform(low, high, (count, 1))

    def wave(frequency_hz, amplitude):
        return amplitude * np.sin(2 * np.pi * (frequency_hz * seconds + each(0, 1)))

    seconds = np.arange(SAMPLES) / SAMPLE_RATE_HZ
    shaft_hz = each(28, 32)
    # The amplitudes of a healthy machine, of which faults make more.
    first, second, third, mesh = each(0.9, 1.1), each(0.2, 0.3), each(0.08, 0.12), each(0.12, 0.18)
    mesh_hz = 8 * shaft_hz
    sidebands = 0.0
    extra = np.zeros((count, SAMPLES))
    match fault:
        case "imbalance":  # the shaft's own frequency grows
            first = first * each(1.8, 3.0)
        case "misalignment":  # its second harmonic grows
            second = second * each(3.0, 6.0)
        case "looseness":  # halves of the shaft's frequency appear, and peaks are cut off
            extra = wave(0.5 * shaft_hz, each(0.2, 0.5)) + wave(1.5 * shaft_hz, each(0.2, 0.5))
        case "bearing":  # at each pass over the damage a blow that rings
            period, start = 1 / each(70, 110), each(0, 1)
            since_blow = ((seconds / period + start) % 1) * period
            ring = np.sin(2 * np.pi * each(600, 800) * since_blow)
            extra = each(0.5, 1.5) * np.exp(-since_blow / 0.0015) * ring
        case "gear":  # the mesh is louder once a turn: sidebands around its frequency
            mesh = mesh * each(1.5, 2.5)
            sidebands = each(0.5, 1.0)
    turn = 1 + sidebands * np.sin(2 * np.pi * (shaft_hz * seconds + each(0, 1)))
    signal = wave(shaft_hz, first) + wave(2 * shaft_hz, second) + wave(3 * shaft_hz, third)
    signal = signal + turn * wave(mesh_hz, mesh) + extra
    if fault == "looseness":
        limit = each(0.7, 0.9) * np.abs(signal).max(axis=1, keepdims=True)
        signal = np.clip(signal, -limit, limit)
    noise = 0.05 * generator.standard_normal((count, SAMPLES))
    return (signal + noise)[:, None].astype(np.float32)


def train():
    """The trained autoencoder, [N, 1, 1, SAMPLES] -> [N, SAMPLES]."""
    generator = np.random.Generator(np.random.PCG64(256))
    model = network.Network([
        network.Conv(generator, 1, 8, (1, 9), stride=(1, 2), pad=(0, 4)), network.Relu(),
        network.Conv(generator, 8, 12, (1, 7), stride=(1, 2), pad=(0, 3)), network.Relu(),
        network.Conv(generator, 12, 12, (1, 5), stride=(1, 2), pad=(0, 2)), network.Relu(),
        network.Flatten(),
        network.Dense(generator, 12 * SAMPLES // 8, BOTTLENECK),
        network.Dense(generator, BOTTLENECK, 96), network.Relu(),
        network.Dense(generator, 96, SAMPLES),
    ])
    optimizer = network.Adam(model)
    losses, started = [], time.monotonic()
    for step in range(STEPS):
        signal = vibration(generator, BATCH)
        error = model.forward(signal[:, :, None]) - signal[:, 0]
        losses.append((error**2).mean())
        model.backward(error / np.float32(BATCH))
        optimizer.step(RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS)))
        if step % 1000 == 999:
            seconds = time.monotonic() - started
            print(f"step {step + 1}/{STEPS}  error {np.mean(losses[-1000:]):.4f}  {seconds:.0f} s")
    return model


def save(model, healthy_limit):
    """Writes model.onnx: `signal` -> `score`, the error in units of `healthy_limit`, and `rebuilt`."""
    nodes, initializers = model.nodes("signal", "window", rank=3)
    initializers |= {
        "channel_axis": np.array([1], np.int64),
        "healthy_limit": np.array(healthy_limit, np.float32),
    }
    nodes += [
        helper.make_node("Unsqueeze", ["window", "channel_axis"], ["rebuilt"], name="rebuild"),
        helper.make_node("Sub", ["signal", "rebuilt"], ["error"], name="difference"),
        helper.make_node("Mul", ["error", "error"], ["squared_error"], name="square"),
        helper.make_node("ReduceMean", ["squared_error"], ["mean_squared_error"], name="mean",
                         axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["mean_squared_error", "healthy_limit"], ["score"], name="scale"),
    ]
    network.save(
        HERE / "model.onnx", "vibration", nodes, initializers,
        {"signal": ["batch", 1, SAMPLES]},
        {"score": ["batch"], "rebuilt": ["batch", 1, SAMPLES]},
        "Anomaly score of 256 samples of vibration at 2,048 Hz, in g; above 1 is unusual. "
        "Made by models/vibration/train.py.",
    )


def area_under_curve(healthy, faulty):
    """The chance that a faulty window scores higher than a healthy one (Mann and Whitney 1947)."""
    order = np.concatenate([healthy, faulty]).argsort(kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    wins = ranks[len(healthy) :].sum() - len(faulty) * (len(faulty) + 1) / 2
    return wins / (len(healthy) * len(faulty))


def check():
    """Measures the model in model.onnx on windows never seen; returns whether it is good enough."""
    model = reference.session(HERE / "model.onnx")
    size = (HERE / "model.onnx").stat().st_size
    print(f"model.onnx: {size} bytes")
    generator = np.random.Generator(np.random.PCG64(2048))
    count = 2000

    def score(windows):
        return model.run(["score"], {"signal": windows})[0]

    healthy = score(vibration(generator, count))
    faulty = {fault: score(vibration(generator, count, fault)) for fault in FAULTS}
    print(f"{'':14}  area under curve  score above 1")
    print(f"{'healthy':14}  {'':16}  {100 * (healthy > 1).mean():5.1f} %")
    for fault, scores in faulty.items():
        area = area_under_curve(healthy, scores)
        print(f"{fault:14}  {area:16.4f}  {100 * (scores > 1).mean():5.1f} %")
    area = area_under_curve(healthy, np.concatenate(list(faulty.values())))
    print(f"{'all faults':14}  {area:16.4f}")
    return size < 200_000 and area >= LEAST_AREA_UNDER_CURVE


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="measure the committed model only")
    options = parser.parse_args()
    if not options.check:
        model = train()
        generator = np.random.Generator(np.random.PCG64(1024))
        windows = vibration(generator, 10_000)
        errors = ((model.forward(windows[:, :, None]) - windows[:, 0]) ** 2).mean(axis=1)
        save(model, np.quantile(errors, HEALTHY_QUANTILE))
        kinds = (None, *FAULTS)
        samples = {kind or "healthy": vibration(generator, 1, kind) for kind in kinds}
        reference.write_data_sets(HERE, [
            {"signal": samples["healthy"]}, {"signal": np.concatenate(list(samples.values()))},
        ])
        (HERE / "samples").mkdir(exist_ok=True)
        for name, window in samples.items():
            np.save(HERE / "samples" / f"{name}.npy", window)
        request = {"model": "vibration", "inputs": [{
            "name": "signal", "shape": [1, 1, SAMPLES], "datatype": "FP32",
            "data": [round(float(value), 6) for value in samples["bearing"].ravel()],
        }]}
        (HERE / "samples" / "request.json").write_text(json.dumps(request) + "\n")
    if not check():
        sys.exit("the model is not good enough")


if __name__ == "__main__":
    main()
