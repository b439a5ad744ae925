#!/usr/bin/env python3
"""Bundles under stock `wasmtime serve`, beside a component that says hello, turn by turn in one run.

    cargo build --release -p lethe-host --features wasmtime-serve --bin lethe --example wasmtime_serve
    python3 benches/edge.py [--lethe target/release/lethe] [--models target/models]
                            [--wasmtime target/release/examples/wasmtime_serve]
                            [--rounds 2] [--seconds 5] [--connections 4]

Every component is compiled ahead (`wasmtime compile`). In each round each one is served anew: timed
is the way from the start of the process to the first whole answer, then requests are sent over
`--connections` connections, by wrk where it is installed. A fresh instance answers each request. The
client runs on the same processors. Every answer must be the first one's; the exit status is 1 where
one is not. The measurements go to benches/record/<target>-<cpu>/<date>-edge.csv.
"""

import argparse
import http.client
import json
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import measurements

ROOT = pathlib.Path(__file__).resolve().parent.parent
LONGEST_START = 60.0
# Model, size of what it leaves open; None is the component that says hello.
CASES = {
    "hello": (None, 0),
    "digits": (ROOT / "models/digits/model.onnx", 1),
    "minilm_fp32": (pathlib.Path("real/minilm_fp32/model.onnx"), 16),
}
# What a first answer of a bundle compiled ahead may take.
MOST_FIRST_ANSWER_MS = 1000.0


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.strip()}")
    return done.stdout


def hello_component():
    """Builds the component that says hello; returns its path."""
    run("cargo", "rustc", "--profile", "wasm", "-p", "lethe-benches", "--example", "hello",
        "--target", "wasm32-unknown-unknown", "--", "-Clinker=wasm-component-ld")
    return ROOT / "target/wasm32-unknown-unknown/wasm/examples/hello.wasm"


def request_for(lethe, model, open_size):
    """A request with inputs of ones, where a model leaves a size open of `open_size`."""
    inputs = []
    for given in json.loads(run(lethe, "inspect", model, "--json"))["inputs"]:
        shape = [size if isinstance(size, int) and size > 0 else open_size for size in given["shape"]]
        if len(shape) > 1:
            shape[0] = 1
        count = 1
        for size in shape:
            count *= size
        inputs.append({"name": given["name"], "datatype": given["datatype"], "shape": shape,
                       "data": [1] * count})
    return json.dumps({"model": model.parent.name, "inputs": inputs})


class Component:
    """One thing to serve, compiled ahead."""

    def __init__(self, name, component, model_bytes, request, arguments, folder):
        self.name, self.request, self.arguments = name, request, arguments
        self.compiled = folder / f"{name}.cwasm"
        run(arguments.wasmtime, "compile", component, "-o", self.compiled)
        self.component_bytes = component.stat().st_size
        self.added_bytes = self.component_bytes - model_bytes
        self.first_ms, self.rates, self.answer = [], [], None

    def ask(self, connection):
        method = "POST" if self.request else "GET"
        connection.request(method, "/api/v1/infer", self.request,
                           {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{self.name}: status {answer.status}: {body[:200]}")
        self.answer = self.answer or body
        if body != self.answer:
            sys.exit(f"{self.name}: another answer than before: {body[:200]}")

    def round(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve = [] if self.arguments.wasmtime.name == "wasmtime_serve" else ["serve"]
        start = time.perf_counter()
        server = subprocess.Popen(
            [self.arguments.wasmtime, *serve, "--allow-precompiled", "--addr", f"127.0.0.1:{port}",
             self.compiled], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    self.ask(http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_START))
                    break
                except ConnectionRefusedError:
                    if time.perf_counter() - start > LONGEST_START or server.poll() is not None:
                        sys.exit(f"{self.name}: the server does not answer")
                    time.sleep(0.002)
            self.first_ms.append((time.perf_counter() - start) * 1e3)
            self.rates.append(self.rate(port))
        finally:
            server.kill()
            server.wait()

    def rate(self, port):
        if shutil.which("wrk"):
            return self.rate_by_wrk(port)
        end, counts = time.perf_counter() + self.arguments.seconds, []

        def client():
            connection = http.client.HTTPConnection("127.0.0.1", port)
            count = 0
            while time.perf_counter() < end:
                self.ask(connection)
                count += 1
            counts.append(count)

        clients = [threading.Thread(target=client) for _ in range(self.arguments.connections)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        if len(counts) < len(clients):
            sys.exit(f"{self.name}: a client was not answered")
        return sum(counts) / self.arguments.seconds

    def rate_by_wrk(self, port):
        script = self.compiled.with_suffix(".lua")
        script.write_text(
            f"wrk.method = {json.dumps('POST' if self.request else 'GET')}\n"
            f"wrk.body = [==[{self.request or ''}]==]\n"
            'wrk.headers["content-type"] = "application/json"\n')
        said = run("wrk", "-t", 1, "-c", self.arguments.connections,
                   "-d", f"{self.arguments.seconds}s", "-s", script,
                   f"http://127.0.0.1:{port}/api/v1/infer")
        if "Non-2xx" in said:
            sys.exit(f"{self.name}: {said}")
        return float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])

    def row(self, hello):
        first, rate = min(self.first_ms), statistics.median(self.rates)
        ratios = [ours / its for ours, its in zip(self.rates, hello.rates)]
        return {
            "component": self.name, "bytes": self.component_bytes, "added_bytes": self.added_bytes,
            "compiled_bytes": self.compiled.stat().st_size,
            "first_answer_ms": round(statistics.median(self.first_ms), 1),
            "best_first_answer_ms": round(first, 1), "requests_per_s": round(rate, 1),
            "rate_to_hello": round(statistics.median(ratios), 4),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lethe", type=pathlib.Path, default=ROOT / "target/release/lethe")
    parser.add_argument("--wasmtime", type=pathlib.Path,
                        default=ROOT / "target/release/examples/wasmtime_serve",
                        help="wasmtime, or the example wasmtime_serve of lethe-host")
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "target/models")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=5, help="of requests in each round")
    parser.add_argument("--connections", type=int, default=4)
    arguments = parser.parse_args()
    for program in (arguments.lethe, arguments.wasmtime):
        if not program.exists():
            parser.error(f"{program} is not there; the head of {__file__} says how it is built")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        components = []
        for name, (model, open_size) in CASES.items():
            if model is None:
                components.append(Component(name, hello_component(), 0, None, arguments, folder))
                continue
            model = arguments.models / model
            if not model.exists():
                print(f"{name}: skipped: {model} is not there")
                continue
            bundle = folder / f"{name}.wasm"
            run(arguments.lethe, "bundle", model, "-o", bundle)
            request = request_for(arguments.lethe, model, open_size)
            components.append(
                Component(name, bundle, model.stat().st_size, request, arguments, folder))
        for _ in range(arguments.rounds):
            for component in components:
                component.round()
        rows = [component.row(components[0]) for component in components]
    print(f"{'component':12} {'MB':>8} {'added MB':>9} {'first answer ms':>16} {'requests/s':>11} "
          f"{'to hello':>9}")
    for row in rows:
        print(f"{row['component']:12} {row['bytes'] / 1e6:8.2f} {row['added_bytes'] / 1e6:9.2f} "
              f"{row['first_answer_ms']:16.1f} {row['requests_per_s']:11.1f} "
              f"{row['rate_to_hello']:9.4f}")
    measurements.write_record(rows, "-edge")
    slow = [row["component"] for row in rows if row["best_first_answer_ms"] > MOST_FIRST_ANSWER_MS]
    if slow:
        print(f"a first answer takes more than {MOST_FIRST_ANSWER_MS:.0f} ms: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
