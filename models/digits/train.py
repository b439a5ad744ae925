#!/usr/bin/env python3
"""Makes the embedded `digits` model: which digit is drawn on 28 x 28 pixels.

    python3 models/digits/train.py            trains, writes model.onnx, data sets and samples
    python3 models/digits/train.py --check    measures the committed model again

Training data are the 8 x 8 digits of scikit-learn. They are enlarged and, at every step, drawn
differently: moved, scaled, rotated, sheared, with a thinner or thicker pen. So the model reads
what a person draws on a canvas, too, and `--check` shows it: beside the held-out digits, which
training never sees, it draws the strokes of strokes.json with several pens.

Seeds are fixed: the same machine makes the same model again, bit for bit. Another one may differ
in the last bits, since the order of additions in a matrix product belongs to the processor.
"""

import argparse
import json
import os
import pathlib
import struct
import sys
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "scripts")]
import python_environment

python_environment.enter()
# One thread: the models are too small for more, and the result must not depend on their number.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from sklearn.datasets import load_digits

import network
import reference

SIZE = 28
# Digits are drawn in the middle 20 x 20 pixels, as in MNIST, so that readers of either agree.
BOX = 20
EPOCHS, BATCH, RATE, DECAY = 160, 64, 3e-3, 1e-4
HELD_OUT_SHARE = 5  # one in five
# `--check` and training fail below these.
HELD_OUT_ACCURACY, DRAWN_ACCURACY = 0.97, 0.9


def split_digits():
    """((images, labels) to train on, the same held out); images [N, 8, 8] in 0..1."""
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target
    order = np.random.Generator(np.random.PCG64(6)).permutation(len(images))
    held_out, training = order[::HELD_OUT_SHARE], np.delete(order, np.s_[::HELD_OUT_SHARE])
    return (images[training], labels[training]), (images[held_out], labels[held_out])


def sample(images, x, y):
    """Bilinear samples of images [N, H, W] at pixel coordinates x, y [N, SIZE, SIZE]; 0 outside."""
    n, height, width = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    x, y = np.clip(x + 1, 0, width + 0.999), np.clip(y + 1, 0, height + 0.999)
    left, top = x.astype(np.int64), y.astype(np.int64)
    fx, fy = (x - left).astype(np.float32), (y - top).astype(np.float32)
    rows = np.arange(n)[:, None, None]
    upper = padded[rows, top, left] * (1 - fx) + padded[rows, top, left + 1] * fx
    lower = padded[rows, top + 1, left] * (1 - fx) + padded[rows, top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy


def draw(images, angle=0.0, shear=0.0, scale_x=1.0, scale_y=1.0, shift_x=0.0, shift_y=0.0,
         threshold=0.5, softness=0.6):
    """8 x 8 digits as pictures [N, 1, 28, 28] in 0..1. Options are numbers or arrays [N].

    An enlarged digit is a blurred one. Ink above `threshold` becomes white over a range of
    `softness`, which gives strokes with an edge again; a lower threshold gives thicker ones.
    """
    column = [np.broadcast_to(np.asarray(v, np.float32), len(images))[:, None, None]
              for v in (angle, shear, scale_x, scale_y, shift_x, shift_y, threshold, softness)]
    angle, shear, scale_x, scale_y, shift_x, shift_y, threshold, softness = column
    centre = np.float32((SIZE - 1) / 2)
    v, u = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - centre
    u, v = u - shift_x, v - shift_y
    u, v = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    pixels_per_cell = np.float32(BOX / 8)
    x = (u + shear * v) / (pixels_per_cell * scale_x) + np.float32(3.5)
    y = v / (pixels_per_cell * scale_y) + np.float32(3.5)
    ink = sample(images, x, y)
    return np.clip((ink - threshold) / softness + 0.5, 0, 1)[:, None].astype(np.float32)


def draw_at_random(generator, images):
    """`draw` with options as different as the hands, pens and canvases that people have."""
    n = len(images)
    scale = generator.uniform(0.75, 1.25, n)
    stretch = generator.uniform(0.85, 1.25, n)
    threshold = generator.uniform(0.2, 0.62, n)
    return draw(
        images,
        angle=np.deg2rad(generator.uniform(-15, 15, n)),
        shear=generator.uniform(-0.4, 0.4, n),
        scale_x=scale * stretch,
        scale_y=scale / stretch,
        shift_x=generator.uniform(-3, 3, n),
        shift_y=generator.uniform(-3, 3, n),
        threshold=threshold,
        # Twice the threshold is the most that leaves the paper black.
        softness=generator.uniform(0.15, np.minimum(1.0, 2 * threshold)),
    )


def drawn_digits():
    """The strokes of strokes.json as pictures with pens of 2 to 4 pixels, and their labels."""
    pictures, labels = [], []
    v, u = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    for label, drawings in json.loads((HERE / "strokes.json").read_text())["digits"].items():
        for strokes in drawings:
            for pen in (2.0, 2.6, 3.2, 4.0):
                distance = np.full((SIZE, SIZE), np.inf, np.float32)
                for stroke in strokes:
                    points = (np.asarray(stroke, np.float32) - 0.5) * BOX + (SIZE - 1) / 2
                    for (x0, y0), (x1, y1) in zip(points, points[1:]):
                        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-6)
                        along = np.clip(((u - x0) * (x1 - x0) + (v - y0) * (y1 - y0)) / length, 0, 1)
                        dx, dy = u - x0 - along * (x1 - x0), v - y0 - along * (y1 - y0)
                        distance = np.minimum(distance, np.hypot(dx, dy))
                pictures.append(np.clip(pen / 2 - distance + 0.5, 0, 1)[None])
                labels.append(int(label))
    return np.asarray(pictures, np.float32), np.asarray(labels)


def train(images, labels):
    """The trained network; its input is [N, 1, 28, 28], its output logits [N, 10]."""
    generator = np.random.Generator(np.random.PCG64(28))
    model = network.Network([
        network.Conv(generator, 1, 8, (3, 3), pad=(1, 1)), network.Relu(), network.MaxPool(),
        network.Conv(generator, 8, 16, (3, 3), pad=(1, 1)), network.Relu(), network.MaxPool(),
        network.Conv(generator, 16, 32, (3, 3), pad=(1, 1)), network.Relu(), network.MaxPool(),
        network.Flatten(),
        network.Dense(generator, 32 * 3 * 3, 64), network.Relu(),
        network.Dense(generator, 64, 10),
    ])
    optimizer = network.Adam(model, DECAY)
    steps = len(images) // BATCH
    for epoch in range(EPOCHS):
        order, losses, started = generator.permutation(len(images)), [], time.monotonic()
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            logits = model.forward(draw_at_random(generator, images[chosen]))
            shifted = logits - logits.max(axis=1, keepdims=True)
            log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
            targets = np.eye(10, dtype=np.float32)[labels[chosen]]
            losses.append(-(targets * log_probabilities).sum(axis=1).mean())
            model.backward((np.exp(log_probabilities) - targets) / np.float32(BATCH))
            progress = (epoch + step / steps) / EPOCHS
            optimizer.step(RATE * 0.5 * (1 + np.cos(np.pi * progress)))
        if epoch % 10 == 9:
            seconds = time.monotonic() - started
            print(f"epoch {epoch + 1:3}/{EPOCHS}  loss {np.mean(losses):.4f}  {seconds:.1f} s an epoch")
    return model


def save_png(path, picture):
    """Writes a [28, 28] picture of whole numbers of 255ths as an 8-bit greyscale PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in np.rint(picture * 255).astype(np.uint8))
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def write_samples(images, labels):
    """One held-out digit of each class as samples/<digit>.{png,npy}, and one REST request."""
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    for digit in range(10):
        picture = np.rint(images[np.flatnonzero(labels == digit)[0]] * 255) / np.float32(255)
        np.save(folder / f"{digit}.npy", picture[None].astype(np.float32))
        save_png(folder / f"{digit}.png", picture[0])
    picture = np.load(folder / "7.npy")
    request = {"model": "digits", "inputs": [{
        "name": "input", "shape": list(picture.shape), "datatype": "FP32",
        "data": [round(float(value), 6) for value in picture.ravel()],
    }]}
    (folder / "request.json").write_text(json.dumps(request) + "\n")


def check(held_out):
    """Measures the model in model.onnx; returns whether it is good enough."""
    model = reference.session(HERE / "model.onnx")
    size = (HERE / "model.onnx").stat().st_size
    print(f"model.onnx: {size} bytes")
    good = size < 200_000
    for name, (pictures, labels), least in (
        ("held-out digits", held_out, HELD_OUT_ACCURACY),
        ("drawn strokes", drawn_digits(), DRAWN_ACCURACY),
    ):
        guesses = model.run(["logits"], {"input": pictures})[0].argmax(axis=1)
        right = int((guesses == labels).sum())
        print(f"{name}: {right} of {len(labels)} right, {100 * right / len(labels):.2f} %")
        wrong = sorted({f"{want} read as {got}" for want, got in zip(labels, guesses) if want != got})
        print(f"  mistakes: {', '.join(wrong) or 'none'}")
        good &= right / len(labels) >= least
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="measure the committed model only")
    options = parser.parse_args()
    (images, labels), (held_out_images, held_out_labels) = split_digits()
    held_out = draw(held_out_images), held_out_labels
    if not options.check:
        started = time.monotonic()
        model = train(images, labels)
        print(f"trained in {time.monotonic() - started:.0f} s")
        nodes, initializers = model.nodes("input", "logits")
        network.save(
            HERE / "model.onnx", "digits", nodes, initializers,
            {"input": ["batch", 1, SIZE, SIZE]}, {"logits": ["batch", 10]},
            "Reads a digit, white on black, values 0 to 1. Made by models/digits/train.py.",
        )
        pictures = held_out[0]
        reference.write_data_sets(HERE, [{"input": pictures[:1]}, {"input": pictures[1:9]}])
        write_samples(pictures, held_out_labels)
    if not check(held_out):
        sys.exit("the model is not good enough")


if __name__ == "__main__":
    main()
