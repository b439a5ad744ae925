#!/usr/bin/env python3
"""Small models for the libraries of the ecosystem: `models.py FOLDER`.

Each is what an export of its kind looks like (names of inputs and outputs, types, symbolic axes,
configuration files), a few kilobytes large and with random weights that are always the same: what
counts is that two engines answer alike. Needs numpy and onnx.
"""

import json
import pathlib
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
WIDTH, HEADS, VOCABULARY = 32, 2, 120


class Builder:
    """A graph that grows node by node; weights are drawn in the order in which they are asked for."""

    def __init__(self, seed, half=False):
        self.random = np.random.default_rng(seed)
        self.dtype = np.float16 if half else np.float32
        self.nodes, self.weights = [], []

    def name(self, of):
        return f"{of}_{len(self.nodes)}_{len(self.weights)}"

    def constant(self, array):
        array = np.asarray(array)
        name = self.name("c")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape, scale=None):
        scale = shape[0] ** -0.5 if scale is None else scale
        return self.constant((self.random.standard_normal(shape) * scale).astype(self.dtype))

    def add(self, op, *inputs, output=None, **attributes):
        output = output or self.name(op)
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def linear(self, x, inside, outside, output=None):
        product = self.add("MatMul", x, self.weight(inside, outside))
        return self.add("Add", product, self.weight(outside, scale=0.1), output=output)

    def norm(self, x, width=WIDTH):
        one = self.constant(np.ones(width, self.dtype))
        none = self.constant(np.zeros(width, self.dtype))
        return self.add("LayerNormalization", x, one, none, axis=-1)

    def attention(self, x, mask=None):
        """Heads side by side; `mask` is added to the scores."""
        split = self.constant(np.array([0, 0, HEADS, WIDTH // HEADS]))

        def heads(permutation):
            parts = self.add("Reshape", self.linear(x, WIDTH, WIDTH), split)
            return self.add("Transpose", parts, perm=permutation)

        q, k, v = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
        root = self.constant(np.array((WIDTH / HEADS) ** -0.5, self.dtype))
        scores = self.add("Mul", self.add("MatMul", q, k), root)
        if mask:
            scores = self.add("Add", scores, mask)
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        joined = self.add("Reshape", self.add("Transpose", mixed, perm=[0, 2, 1, 3]), self.constant(np.array([0, 0, WIDTH])))
        return self.linear(joined, WIDTH, WIDTH)

    def gelu(self, x):
        half, one = (self.constant(np.array(value, self.dtype)) for value in (0.5, 1.0))
        root = self.constant(np.array(2**0.5, self.dtype))
        erf = self.add("Erf", self.add("Div", x, root))
        return self.add("Mul", self.add("Mul", x, self.add("Add", erf, one)), half)

    def layer(self, x, mask=None):
        x = self.norm(self.add("Add", x, self.attention(x, mask)))
        inner = self.gelu(self.linear(x, WIDTH, 2 * WIDTH))
        return self.norm(self.add("Add", x, self.linear(inner, 2 * WIDTH, WIDTH)))

    def text(self, layers=2):
        """A BERT over `input_ids`, `attention_mask` and `token_type_ids`."""
        words = self.add("Gather", self.weight(VOCABULARY, WIDTH, scale=1), "input_ids")
        kinds = self.add("Gather", self.weight(2, WIDTH, scale=0.3), "token_type_ids")
        length = self.add("Gather", self.add("Shape", "input_ids"), self.constant(np.array(1)))
        places = self.add("Range", self.constant(np.array(0)), length, self.constant(np.array(1)))
        where = self.add("Gather", self.weight(64, WIDTH, scale=0.5), places)
        x = self.norm(self.add("Add", self.add("Add", words, kinds), where))
        kept = self.add("Cast", "attention_mask", to=helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))
        hidden = self.add("Sub", self.constant(np.array(1, self.dtype)), kept)
        low = self.constant(np.array(-1e4, self.dtype))
        mask = self.add("Unsqueeze", self.add("Mul", hidden, low), self.constant(np.array([1, 2])))
        for _ in range(layers):
            x = self.layer(x, mask)
        return x

    def image(self, patch=8):
        """A ViT's patches of `pixel_values`, each a row."""
        kernel = self.weight(WIDTH, 3, patch, patch, scale=0.1)
        tiles = self.add("Conv", "pixel_values", kernel, strides=[patch, patch], kernel_shape=[patch, patch])
        flat = self.add("Reshape", tiles, self.constant(np.array([0, WIDTH, -1])))
        return self.norm(self.layer(self.add("Transpose", flat, perm=[0, 2, 1])))

    def write(self, folder, inputs, outputs, name="model.onnx", opset=17):
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "main", [info(*one) for one in inputs], [info(*one) for one in outputs], self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        folder = folder / "onnx"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(model.SerializeToString())


WORDS = (
    "the a of and to in is was he she it for on with as his her they at be this from i have or by one had "
    "not but what all were when we there can an your which their said if do will each about how up out them "
    "then many some so these would other into has more two like him see time could no make than first been "
    "its who now people my made over did down only way find use may water long little very after words called "
    "just where most know get through back much before go good new write our used me man too any day same"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT_INPUTS = [(name, INT, ["batch_size", "sequence_length"]) for name in ("input_ids", "attention_mask", "token_type_ids")]


def write_json(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def tokenizer(folder):
    vocabulary = (SPECIAL + WORDS)[:VOCABULARY]
    ids = {word: i for i, word in enumerate(vocabulary)}
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    pair = template + [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    write_json(
        folder,
        tokenizer={
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [
                {"id": ids[word], "content": word, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True} for word in SPECIAL
            ],
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing", "single": template, "pair": pair,
                "special_tokens": {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")},
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": ids},
        },
        tokenizer_config={
            "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64,
            "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
        },
    )


def text_model(root, name, architecture, heads, labels=None, files=(("model.onnx", False),)):
    """A BERT with `heads`: outputs of a width each."""
    folder = root / name
    tokenizer(folder)
    config = {"model_type": "bert", "architectures": [architecture], "hidden_size": WIDTH,
              "num_attention_heads": HEADS, "vocab_size": VOCABULARY, "pad_token_id": 0}
    if labels:
        config |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    write_json(folder, config=config)
    for file, half in files:
        builder = Builder(len(name), half)
        x = builder.text()
        element = HALF if half else FLOAT
        outputs = []
        for output, width in heads:
            if output == "last_hidden_state":
                builder.add("Identity", x, output=output)
            elif output == "pooled":
                first = builder.add("Gather", x, builder.constant(np.array(0)), axis=1)
                builder.linear(first, WIDTH, width, output="logits")
            elif width == 1:
                one = builder.linear(x, WIDTH, 1)
                builder.add("Squeeze", one, builder.constant(np.array([-1])), output=output)
            else:
                builder.linear(x, WIDTH, width, output=output)
            batch = ["batch_size"] if output == "pooled" else ["batch_size", "sequence_length"]
            axes = batch if width == 1 else [*batch, width]
            outputs.append(("logits" if output == "pooled" else output, element, axes))
        builder.write(folder, TEXT_INPUTS, outputs, file)


def image_model(root, name, config, processor, outputs):
    folder = root / name
    size = {"height": 32, "width": 32}
    write_json(
        folder, config={"hidden_size": WIDTH, **config},
        preprocessor_config={"do_resize": True, "size": size, "do_rescale": True, "rescale_factor": 1 / 255,
                             "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2,
                             **processor},
    )
    builder = Builder(len(name))
    made = outputs(builder)
    builder.write(folder, [("pixel_values", FLOAT, ["batch_size", 3, "height", "width"])], made)


def classes(builder):
    mean = builder.add("ReduceMean", builder.image(), axes=[1], keepdims=0)
    builder.linear(mean, WIDTH, 5, output="logits")
    return [("logits", FLOAT, ["batch_size", 5])]


def boxes(builder):
    x = builder.image()
    builder.linear(x, WIDTH, 4, output="logits")
    builder.add("Sigmoid", builder.linear(x, WIDTH, 4), output="pred_boxes")
    return [("logits", FLOAT, ["batch_size", "queries", 4]), ("pred_boxes", FLOAT, ["batch_size", "queries", 4])]


def segments(builder):
    kernel = builder.weight(WIDTH, 3, 3, 3, scale=0.3)
    x = builder.add("Relu", builder.add("Conv", "pixel_values", kernel, pads=[1] * 4, strides=[4, 4]))
    builder.add("Conv", x, builder.weight(3, WIDTH, 1, 1, scale=0.5), output="logits")
    return [("logits", FLOAT, ["batch_size", 3, "h", "w"])]


def depth(builder):
    kernel = builder.weight(WIDTH, 3, 3, 3, scale=0.3)
    x = builder.add("Relu", builder.add("Conv", "pixel_values", kernel, pads=[1] * 4, strides=[2, 2]))
    up = builder.add("ConvTranspose", x, builder.weight(WIDTH, 1, 2, 2, scale=0.3), strides=[2, 2])
    sizes = builder.constant(np.array([1, 1, 2, 2], np.float32))
    large = builder.add("Resize", up, "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")
    builder.add("Squeeze", builder.add("Relu", large), builder.constant(np.array([1])), output="predicted_depth")
    return [("predicted_depth", FLOAT, ["batch_size", "h", "w"])]


def speech(root):
    """A wav2vec 2.0 that writes letters."""
    folder = root / "speech"
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    ids = {letter: i for i, letter in enumerate(letters)}
    write_json(
        folder,
        config={"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"], "vocab_size": len(letters), "pad_token_id": 0},
        preprocessor_config={"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True,
                             "feature_size": 1, "padding_value": 0.0, "return_attention_mask": False, "sampling_rate": 16000},
        tokenizer={
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": letters[i], "special": True, "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False} for i in range(4)],
            "normalizer": None,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": False},
            "post_processor": None,
            "decoder": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
            "model": {"type": "WordPiece", "vocab": ids, "unk_token": "<unk>", "continuing_subword_prefix": "",
                      "max_input_chars_per_word": 100},
        },
        tokenizer_config={"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>", "unk_token": "<unk>",
                          "bos_token": "<s>", "eos_token": "</s>", "word_delimiter_token": "|"},
    )
    builder = Builder(3)
    sound = builder.add("Unsqueeze", "input_values", builder.constant(np.array([1])))
    x = builder.gelu(builder.add("Conv", sound, builder.weight(WIDTH, 1, 10, scale=0.5), strides=[5]))
    x = builder.gelu(builder.add("Conv", x, builder.weight(WIDTH, WIDTH, 8, scale=0.1), strides=[40]))
    builder.linear(builder.layer(builder.add("Transpose", x, perm=[0, 2, 1])), WIDTH, len(letters), output="logits")
    builder.write(folder, [("input_values", FLOAT, ["batch_size", "samples"])],
                  [("logits", FLOAT, ["batch_size", "frames", len(letters)])])


def writer(root):
    """A Llama without cache tricks: GPT-like layers with keys and values handed on, as Optimum exports them."""
    folder = root / "writer"
    tokenizer(folder)
    per_head = WIDTH // HEADS
    write_json(
        folder,
        config={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH,
                "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "num_hidden_layers": 1,
                "vocab_size": VOCABULARY, "max_position_embeddings": 64, "eos_token_id": 3, "pad_token_id": 0},
        generation_config={"eos_token_id": 3, "pad_token_id": 0},
    )
    builder = Builder(11)
    split = builder.constant(np.array([0, 0, HEADS, per_head]))
    words = builder.add("Gather", builder.weight(VOCABULARY, WIDTH, scale=1), "input_ids")
    x = builder.add("Add", words, builder.add("Gather", builder.weight(64, WIDTH, scale=0.5), "position_ids"))

    def heads(y):
        return builder.add("Transpose", builder.add("Reshape", builder.linear(y, WIDTH, WIDTH), split), perm=[0, 2, 1, 3])

    y = builder.norm(x)
    q, k, v = heads(y), heads(y), heads(y)
    k = builder.add("Concat", "past_key_values.0.key", k, axis=2, output="present.0.key")
    v = builder.add("Concat", "past_key_values.0.value", v, axis=2, output="present.0.value")
    scores = builder.add("MatMul", q, builder.add("Transpose", k, perm=[0, 1, 3, 2]))
    # A key is seen where it is no later than the query, and not masked.
    axis = builder.constant(np.array(1))
    one, none = builder.constant(np.array(1)), builder.constant(np.array(0))
    total = builder.add("Gather", builder.add("Shape", "attention_mask"), axis)
    keys = builder.add("Range", none, total, one)
    queries = builder.add("Unsqueeze", "position_ids", builder.constant(np.array([1, 3])))
    late = builder.add("Greater", keys, queries)
    masked = builder.add("Equal", builder.add("Unsqueeze", "attention_mask", builder.constant(np.array([1, 2]))), none)
    low, zero = builder.constant(np.array(-1e4, np.float32)), builder.constant(np.array(0, np.float32))
    scores = builder.add("Add", scores, builder.add("Where", builder.add("Or", late, masked), low, zero))
    mixed = builder.add("MatMul", builder.add("Softmax", scores, axis=-1), v)
    joined = builder.add("Reshape", builder.add("Transpose", mixed, perm=[0, 2, 1, 3]), builder.constant(np.array([0, 0, WIDTH])))
    x = builder.add("Add", x, builder.linear(joined, WIDTH, WIDTH))
    builder.linear(builder.norm(x), WIDTH, VOCABULARY, output="logits")
    batch = "batch_size"
    past = [batch, HEADS, "past_sequence_length", per_head]
    present = [batch, HEADS, "total_sequence_length", per_head]
    builder.write(
        folder,
        [("input_ids", INT, [batch, "sequence_length"]), ("attention_mask", INT, [batch, "total_sequence_length"]),
         ("position_ids", INT, [batch, "sequence_length"]),
         ("past_key_values.0.key", FLOAT, past), ("past_key_values.0.value", FLOAT, past)],
        [("logits", FLOAT, [batch, "sequence_length", VOCABULARY]),
         ("present.0.key", FLOAT, present), ("present.0.value", FLOAT, present)],
    )


def main(root):
    text_model(root, "features", "BertModel", [("last_hidden_state", WIDTH)],
               files=(("model.onnx", False), ("model_fp16.onnx", True)))
    text_model(root, "sentiment", "BertForSequenceClassification", [("pooled", 2)], ["NEGATIVE", "POSITIVE"])
    text_model(root, "entailment", "BertForSequenceClassification", [("pooled", 3)], ["entailment", "neutral", "contradiction"])
    text_model(root, "names", "BertForTokenClassification", [("logits", 5)], ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    text_model(root, "questions", "BertForQuestionAnswering", [("start_logits", 1), ("end_logits", 1)])
    text_model(root, "blanks", "BertForMaskedLM", [("logits", VOCABULARY)])
    five = {i: f"kind {i}" for i in range(5)}
    image_model(root, "pictures", {"model_type": "vit", "architectures": ["ViTForImageClassification"], "id2label": five},
                {"image_processor_type": "ViTImageProcessor"}, classes)
    image_model(root, "objects", {"model_type": "yolos", "architectures": ["YolosForObjectDetection"],
                                  "id2label": {i: five[i] for i in range(3)}},
                {"image_processor_type": "YolosFeatureExtractor", "size": {"shortest_edge": 32, "longest_edge": 64}}, boxes)
    image_model(root, "segments", {"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"],
                                   "id2label": {i: five[i] for i in range(3)}},
                {"image_processor_type": "SegformerFeatureExtractor"}, segments)
    image_model(root, "depth", {"model_type": "dpt", "architectures": ["DPTForDepthEstimation"]},
                {"image_processor_type": "DPTImageProcessor"}, depth)
    speech(root)
    writer(root)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
