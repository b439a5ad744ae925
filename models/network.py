"""Small convolutional networks in numpy: layers with gradients, Adam, and export to ONNX.

The embedded models are a few thousand parameters, so a training framework of hundreds of
megabytes would be the largest part of making them. A layer is an object with

    forward(x) -> y            keeps what `backward` needs
    backward(dy) -> dx         fills `gradients`
    parameters, gradients      lists of arrays of the same shapes
    nodes(x, y, name)          ONNX nodes that compute y from x, and their initializers

Tensors are float32 in ONNX's layout [N, C, H, W]; a signal is an image of height 1. On export
such a signal becomes [N, C, W] (`rank=3`), as one-dimensional ONNX convolutions have it.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def he_normal(generator, shape, fan_in):
    """Initial weights for a layer that a ReLU follows (He et al. 2015, arXiv:1502.01852)."""
    return (generator.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)


class Conv:
    """Convolution with bias: [N, C, H, W] -> [N, M, OH, OW], computed as im2col and one product."""

    def __init__(self, generator, in_channels, out_channels, kernel, stride=(1, 1), pad=(0, 0)):
        self.kernel, self.stride, self.pad = kernel, stride, pad
        fan_in = in_channels * kernel[0] * kernel[1]
        self.parameters = [
            he_normal(generator, (out_channels, in_channels, *kernel), fan_in),
            np.zeros(out_channels, np.float32),
        ]
        self.gradients = [np.zeros_like(p) for p in self.parameters]

    def forward(self, x):
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.pad
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(2, 3))
        windows = windows[:, :, ::sh, ::sw]  # [N, C, OH, OW, KH, KW]
        n, c, oh, ow = windows.shape[:4]
        self.columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, c * kh * kw)
        self.shapes = x.shape, padded.shape, (n, oh, ow)
        weight, bias = self.parameters
        y = self.columns @ weight.reshape(len(weight), -1).T + bias
        return np.ascontiguousarray(y.reshape(n, oh, ow, -1).transpose(0, 3, 1, 2))

    def backward(self, dy):
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.pad
        input_shape, padded_shape, (n, oh, ow) = self.shapes
        weight = self.parameters[0]
        rows = dy.transpose(0, 2, 3, 1).reshape(n * oh * ow, -1)
        self.gradients = [(rows.T @ self.columns).reshape(weight.shape), rows.sum(axis=0)]
        columns = (rows @ weight.reshape(len(weight), -1)).reshape(n, oh, ow, -1, kh, kw)
        columns = columns.transpose(4, 5, 0, 3, 1, 2)  # [KH, KW, N, C, OH, OW]
        dx = np.zeros(padded_shape, np.float32)
        for i in range(kh):
            for j in range(kw):
                dx[:, :, i : i + oh * sh : sh, j : j + ow * sw : sw] += columns[i, j]
        return dx[:, :, ph : ph + input_shape[2], pw : pw + input_shape[3]]

    def nodes(self, x, y, name, rank):
        weight, bias = self.parameters
        spatial = slice(4 - rank, 2)  # rank 3 leaves the height of 1 out
        if rank == 3:
            weight = weight[:, :, 0, :]
        node = helper.make_node(
            "Conv", [x, f"{name}.weight", f"{name}.bias"], [y], name=name,
            kernel_shape=list(self.kernel[spatial]), strides=list(self.stride[spatial]),
            pads=list(self.pad[spatial]) * 2,
        )
        return [node], {f"{name}.weight": weight, f"{name}.bias": bias}


class Relu:
    """max(x, 0)."""

    parameters, gradients = [], []

    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy):
        return dy * self.positive

    def nodes(self, x, y, name, rank):
        return [helper.make_node("Relu", [x], [y], name=name)], {}


class MaxPool:
    """Maximum over windows of 2 x 2, stride 2; an odd last row or column is dropped."""

    parameters, gradients = [], []

    def forward(self, x):
        n, c, h, w = x.shape
        self.shape = x.shape
        blocks = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
        y = blocks.max(axis=(3, 5))
        # Ties share the gradient; they only occur among zeros, where ReLU stops it anyway.
        self.chosen = blocks == y[:, :, :, None, :, None]
        return y

    def backward(self, dy):
        n, c, h, w = self.shape
        dx = np.zeros(self.shape, np.float32)
        spread = self.chosen * dy[:, :, :, None, :, None]
        dx[:, :, : h // 2 * 2, : w // 2 * 2] = spread.reshape(n, c, h // 2 * 2, w // 2 * 2)
        return dx

    def nodes(self, x, y, name, rank):
        node = helper.make_node("MaxPool", [x], [y], name=name, kernel_shape=[2, 2], strides=[2, 2])
        return [node], {}


class Flatten:
    """[N, ...] -> [N, product of the rest]."""

    parameters, gradients = [], []

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)

    def nodes(self, x, y, name, rank):
        return [helper.make_node("Flatten", [x], [y], name=name, axis=1)], {}


class Dense:
    """x @ weight.T + bias: [N, K] -> [N, M]."""

    def __init__(self, generator, in_features, out_features):
        self.parameters = [
            he_normal(generator, (out_features, in_features), in_features),
            np.zeros(out_features, np.float32),
        ]
        self.gradients = [np.zeros_like(p) for p in self.parameters]

    def forward(self, x):
        self.x = x
        return x @ self.parameters[0].T + self.parameters[1]

    def backward(self, dy):
        self.gradients = [dy.T @ self.x, dy.sum(axis=0)]
        return dy @ self.parameters[0]

    def nodes(self, x, y, name, rank):
        node = helper.make_node(
            "Gemm", [x, f"{name}.weight", f"{name}.bias"], [y], name=name, transB=1
        )
        return [node], {f"{name}.weight": self.parameters[0], f"{name}.bias": self.parameters[1]}


class Network:
    """Layers one after another."""

    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy):
        for layer in reversed(self.layers):
            dy = layer.backward(dy)

    def parameters(self):
        return [p for layer in self.layers for p in layer.parameters]

    def gradients(self):
        return [g for layer in self.layers for g in layer.gradients]

    def nodes(self, x, y, rank=4):
        """ONNX nodes from tensor `x` to tensor `y` and the initializers that they use."""
        nodes, initializers = [], {}
        for index, layer in enumerate(self.layers):
            name = f"{type(layer).__name__.lower()}_{index}"
            output = y if index == len(self.layers) - 1 else f"{name}.output"
            more_nodes, more_initializers = layer.nodes(x, output, name, rank)
            nodes += more_nodes
            initializers |= more_initializers
            x = output
        return nodes, initializers


class Adam:
    """Adam with decoupled weight decay (arXiv:1412.6980, arXiv:1711.05101)."""

    def __init__(self, network, decay=0.0):
        self.network, self.decay, self.step_count = network, decay, 0
        self.first = [np.zeros_like(p) for p in network.parameters()]
        self.second = [np.zeros_like(p) for p in network.parameters()]

    def step(self, rate):
        self.step_count += 1
        correct1, correct2 = 1 - 0.9**self.step_count, 1 - 0.999**self.step_count
        triples = zip(self.network.parameters(), self.network.gradients(), self.first, self.second)
        for parameter, gradient, first, second in triples:
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient * gradient - second)
            update = (first / correct1) / (np.sqrt(second / correct2) + 1e-8)
            parameter -= np.float32(rate) * (update + np.float32(self.decay) * parameter)


def save(path, name, nodes, initializers, inputs, outputs, doc):
    """Writes a checked model. `inputs` and `outputs`: {name: shape}, all float32."""
    values = [
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in part.items()]
        for part in (inputs, outputs)
    ]
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(array), n) for n, array in initializers.items()
    ]
    graph = helper.make_graph(nodes, name, *values, tensors, doc_string=doc)
    # IR version 8 and opset 17 are the oldest pair in which nothing used here is deprecated.
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name="lethe"
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
