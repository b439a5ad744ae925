#!/usr/bin/env python3
"""Other people's clients against `lethe serve`, unchanged: tritonclient (HTTP and gRPC), kserve,
schemathesis over /openapi.json, websockets, curl with HTTP/2.

    python3 check.py LETHE [CHECK…]    starts that program on the embedded digits model, tests, ends it

Every check prints a line; the last one is `N passed, N failed`. The packages of requirements.txt
are expected in the interpreter that runs this.
"""

import asyncio
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "digits" / "model.onnx"

# Where a check finds the token that loads models.
BEARER = "LETHE_BEARER"

# The memory that the server has for the bodies of all requests.
BODIES_MIB = 8

rng = np.random.default_rng(7)
IMAGES = rng.random((3, 1, 28, 28), dtype=np.float32)


class Server:
    """`lethe serve` on a free port, ended with the block."""

    def __init__(self, program, *arguments):
        self.command = [program, "serve", "--port", "0", *arguments, str(MODEL)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), line
        self.address = line.split("//")[1].strip()
        self.url = "http://" + self.address
        # Who loads and unloads models shows it.
        self.bearer = self.process.stdout.readline().split("Authorization: ")[1].strip()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(timeout=30) == 0, "the server ends well"


def curl(*arguments):
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def infer_body(images):
    tensor = {"name": "input", "shape": list(images.shape), "datatype": "FP32",
              "data": images.ravel().tolist()}
    return {"model": "digits", "inputs": [tensor]}


def expected(server):
    """What plain REST answers: the others must agree."""
    body = json.dumps(infer_body(IMAGES))
    text = curl("-H", "content-type: application/json", "-d", body, server.url + "/api/v1/infer")
    output = json.loads(text)["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def triton(module, client, server):
    """The calls that a Triton client makes, over either protocol."""
    from tritonclient.utils import InferenceServerException
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("digits") and client.is_model_ready("digits", "1")
    assert not client.is_model_ready("nothing") if hasattr(client, "_pool") else True
    client.get_server_metadata(), client.get_model_metadata("digits"), client.get_model_config("digits")
    client.get_model_repository_index()
    control = {"authorization": os.environ[BEARER]}
    try:
        client.unload_model("digits")
    except InferenceServerException:
        pass
    else:
        raise AssertionError("a model was unloaded by who has no token")
    client.unload_model("digits", headers=control)
    assert not client.is_model_ready("digits")
    client.load_model("digits", headers=control)
    assert client.is_model_ready("digits")
    wanted = expected(server)
    for binary in (True, False) if "http" in module.__name__ else (None,):
        tensor = module.InferInput("input", list(IMAGES.shape), "FP32")
        output = module.InferRequestedOutput("logits")
        if binary is None:
            tensor.set_data_from_numpy(IMAGES)
        else:
            tensor.set_data_from_numpy(IMAGES, binary_data=binary)
            output = module.InferRequestedOutput("logits", binary_data=binary)
        result = client.infer("digits", [tensor], outputs=[output], request_id="r1")
        assert np.array_equal(result.as_numpy("logits"), wanted)
    for model, shape in (("nothing", IMAGES.shape), ("digits", (2352,))):
        tensor = module.InferInput("input", list(shape), "FP32")
        tensor.set_data_from_numpy(IMAGES.reshape(shape))
        try:
            client.infer(model, [tensor])
        except InferenceServerException as error:
            assert "LETHE-" in str(error) or "unknown" in str(error).lower(), error
        else:
            raise AssertionError("a wrong request was answered")


def tritonclient_http(server):
    import tritonclient.http as module
    client = module.InferenceServerClient(server.address)
    triton(module, client, server)
    tensor = module.InferInput("input", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES)
    for algorithm in ("gzip",):
        result = client.infer("digits", [tensor], request_compression_algorithm=algorithm,
                              response_compression_algorithm=algorithm)
        assert np.array_equal(result.as_numpy("logits"), expected(server))
    assert client.get_inference_statistics("digits")["model_stats"]


def tritonclient_grpc(server):
    import tritonclient.grpc as module
    client = module.InferenceServerClient(server.address)
    triton(module, client, server)
    # A stream: answers come in order.
    answers = []
    client.start_stream(callback=lambda result, error: answers.append((result, error)))
    for i in range(3):
        tensor = module.InferInput("input", [1, 1, 28, 28], "FP32")
        tensor.set_data_from_numpy(IMAGES[i : i + 1])
        client.async_stream_infer("digits", [tensor], request_id=str(i))
    client.stop_stream()
    wanted = expected(server)
    assert [r.get_response().id for r, e in answers if e is None] == ["0", "1", "2"], answers
    for i, (result, _) in enumerate(answers):
        assert np.array_equal(result.as_numpy("logits"), wanted[i : i + 1])
    # A message for which there is no room is one to send again later, in gRPC's own words.
    from tritonclient.utils import InferenceServerException
    images = np.zeros(((BODIES_MIB << 20) // IMAGES[0].nbytes + 1, 1, 28, 28), np.float32)
    tensor = module.InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    try:
        client.infer("digits", [tensor])
    except InferenceServerException as error:
        assert "UNAVAILABLE" in error.status() and "LETHE-BODIES" in error.message(), error
    else:
        raise AssertionError("there was room for more than all bodies may take")


def kserve_rest(server):
    from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig
    tensor = InferInput("input", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES, binary_data=False)
    request = InferRequest(model_name="digits", infer_inputs=[tensor])

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        assert await client.is_server_live(server.url) and await client.is_server_ready(server.url)
        assert await client.is_model_ready(server.url, "digits")
        return await client.infer(server.url, request, model_name="digits")

    answer = asyncio.run(ask())
    assert np.allclose(answer.outputs[0].as_numpy(), expected(server))


def kserve_grpc(server):
    from kserve import InferInput, InferRequest, InferenceGRPCClient
    tensor = InferInput("input", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES)
    request = InferRequest(model_name="digits", infer_inputs=[tensor])

    async def ask():
        client = InferenceGRPCClient(server.address)
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("digits")
        return await client.infer(request)

    answer = asyncio.run(ask())
    assert np.array_equal(answer.outputs[0].as_numpy(), expected(server))


def websocket(server):
    import websockets

    async def talk():
        uri = f"ws://{server.address}/api/v1/stream"
        async with websockets.connect(uri, max_size=None) as socket:
            wanted = expected(server)
            # Several in flight; each answer names its request.
            for i in range(3):
                await socket.send(json.dumps({**infer_body(IMAGES[i : i + 1]), "id": f"r{i}"}))
            for _ in range(3):
                answer = json.loads(await socket.recv())
                i = int(answer["id"][1:])
                assert answer["final"], answer
                assert np.allclose(answer["result"]["outputs"][0]["data"], wanted[i])
            # A batch: partial results, then the end; one bad item does not sink the rest.
            bad = {**infer_body(IMAGES[:1]), "model": "nothing"}
            items = [infer_body(IMAGES[:1]), bad, infer_body(IMAGES[2:])]
            await socket.send(json.dumps({"id": "b", "requests": items}))
            answers = [json.loads(await socket.recv()) for _ in range(4)]
            assert [a.get("index") for a in answers] == [0, 1, 2, None], answers
            assert answers[1]["error"]["code"] == "LETHE-MODEL-UNKNOWN" and answers[3]["final"]
            # Nonsense has an answer and ends nothing.
            await socket.send("{")
            assert json.loads(await socket.recv())["error"]["status"] == 400
            await socket.send(json.dumps({"cancel": "never"}))
            await socket.send(json.dumps({**infer_body(IMAGES[:1]), "id": "last"}))
            assert json.loads(await socket.recv())["id"] == "last"

    asyncio.run(talk())


def curl_http2(server):
    out = curl("--http2-prior-knowledge", "-w", " %{http_version}", server.url + "/api/v1/health")
    assert out.endswith(" 2"), out
    body = json.dumps(infer_body(IMAGES))
    for version in ("--http2-prior-knowledge", "--http2", "--http1.1"):
        text = curl(version, "-H", "content-type: application/json", "-d", body,
                    server.url + "/api/v1/infer")
        assert len(json.loads(text)["outputs"][0]["data"]) == 30


def schemathesis(server):
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    command = [
        program, "run", server.url + "/openapi.json", "--checks", "all", "--seed", "7",
        "--max-examples", "40", "--suppress-health-check", "all", "--no-color", "--warnings", "off",
        # The server is open here but for its control: what needs a key is tested elsewhere.
        "--exclude-checks", "ignored_auth", "-H", "Authorization: " + os.environ[BEARER],
        # A schema cannot say which tensors fit which model: only the server can.
        "--exclude-checks", "positive_data_acceptance",
    ]
    # It keeps what it found where it is started.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


CHECKS = [tritonclient_http, tritonclient_grpc, kserve_rest, kserve_grpc, websocket, curl_http2,
          schemathesis]


class Address:
    """A server that somebody else started."""

    def __init__(self, address):
        self.address = address
        self.url = "http://" + address


def main():
    program, only = sys.argv[1], sys.argv[2:]
    if program == "--at":
        address, name = only
        return globals()[name](Address(address))
    failed = 0
    checks = [check.__name__ for check in CHECKS if not only or check.__name__ in only]
    with Server(program, "--max-bodies-mb", str(BODIES_MIB)) as server:
        for check in checks:
            if check == "curl_http2" and shutil.which("curl") is None:
                print("skipped: no curl")
                continue
            # In a process of its own: the clients' descriptions of one protocol exclude each other.
            command = [sys.executable, __file__, "--at", server.address, check]
            environment = os.environ | {BEARER: server.bearer}
            done = subprocess.run(command, capture_output=True, text=True, timeout=900,
                                  env=environment)
            print("ok" if done.returncode == 0 else "FAILED", check, flush=True)
            if done.returncode != 0:
                failed += 1
                print(done.stdout + done.stderr)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
