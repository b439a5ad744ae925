#!/usr/bin/env python3
"""Holds the texts of the table of operators against the standard, and against the code.

    python3 scripts/signatures.py            what the packages onnx and onnxruntime know is what the texts say
    python3 scripts/signatures.py --read     each attribute that a text takes is read, by the code alone

A row of engine/src/operators.rs says which inputs, outputs and attributes a node may have, in which
opsets (engine/src/operators/signature.rs). The first form asks the schemas of the pinned packages, so it
needs the shared environment; it is part of the standard's tests. The second is a house rule: an attribute
that is taken and never read would be lost without a word, unless the text says that it changes nothing.
"""

import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPERATORS = ROOT / "engine/src/operators.rs"
FOLDER = ROOT / "engine/src/operators"
OUR_DOMAIN = "ai.lethe"  # operators that rewrites make; no file contains them
# In no schema of the packages, though onnxruntime writes it.
WITHOUT_SCHEMA = {("com.microsoft", "SimplifiedLayerNormalization")}

Entry = collections.namedtuple("Entry", "name mark first end")
Row = collections.namedtuple("Row", "domain op_type since end module parts")


def entry(text):
    text, _, opsets = text.partition("@")
    first, _, end = opsets.partition("..")
    name = re.match(r"\w+", text)[0]
    return Entry(name, text[len(name):], int(first or 0), int(end or sys.maxsize))


def parts(signature):
    """Inputs, outputs and attributes, each a list of entries."""
    ends, _, attributes = signature.partition(" : ")
    inputs, _, outputs = ends.partition("->")
    return [[entry(text) for text in part.split()] for part in (inputs, outputs, attributes)]


def rows():
    pattern = r'^ *\("([\w.]+)", *"(\w+)", *(\d+), *([\w:]+),\s*"((?:[^"\\]|\\\s)*)"\),'
    found = re.findall(pattern, OPERATORS.read_text(), re.M)
    for domain, op_type, since, path, signature in found:
        later = [int(row[2]) for row in found if row[:2] == (domain, op_type) and int(row[2]) > int(since)]
        signature = re.sub(r"\\\s+", "", signature)
        module = path.rsplit("::", 1)[0].replace("::", "/")
        yield Row(domain, op_type, int(since), min(later, default=sys.maxsize), module, parts(signature))


def source(module):
    """A module with those below it and those that it takes something from."""
    def files(name):
        return [FOLDER / f"{name}.rs", *(FOLDER / name).glob("**/*.rs")]

    own = "".join(path.read_text() for path in files(module) if path.exists())
    used = set(re.findall(r"use super::(?:super::)?(\w+)", own)) - {"case", "signature"}
    parents = [pathlib.Path(module).parent] if "/" in module else []
    others = [path for name in [*used, *map(str, parents)] for path in files(name) if path.exists()]
    return own + "".join(path.read_text() for path in others)


def unread():
    """Lines about attributes that a row takes and no code reads."""
    for row in rows():
        text = source(row.module)
        for attribute in row.parts[2]:
            if attribute.mark:
                continue
            # `{prefix}_ids` in a format string is read as `target_ids`, and a list may be a tensor instead.
            name = attribute.name.removesuffix("_as_tensor")
            ends = [name[i:] for i, letter in enumerate(name) if letter == "_"]
            if not any(f'"{read}"' in text for read in [name, *("{prefix}" + end for end in ends)]):
                yield f"{row.domain} {row.op_type}: attribute {attribute.name} is not read"


def schemas():
    """The schemas of both packages by domain and name, each by the version since which it holds."""
    import onnx
    from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime

    known = collections.defaultdict(dict)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.deprecated:
            known[schema.domain or "ai.onnx", schema.name][schema.since_version] = schema
    standard = set(known)
    for schema in onnxruntime.get_all_operator_schema():
        key = (schema.domain or "ai.onnx", schema.name)
        if key not in standard:
            known[key][schema.since_version] = schema
    return known, onnx.defs.onnx_opset_version()


def of_schema(schema):
    """Names of inputs and outputs with their marks, and of attributes."""
    def marked(parameters, least):
        for i, parameter in enumerate(parameters):
            option = str(parameter.option).rsplit(".", 1)[-1].lower()
            many = "+" if least > i else "*"
            # A name of the standard's first Split ends in dots.
            yield parameter.name.rstrip("."), {"single": "", "optional": "?"}.get(option, many)

    return (list(marked(schema.inputs, schema.min_input)), list(marked(schema.outputs, schema.min_output)),
            sorted(schema.attributes))


def differences():
    """Lines that say where a text differs from the schemas."""
    known, newest = schemas()
    text = (FOLDER / "signature.rs").read_text()
    if f"(super::ONNX_DOMAIN, {newest})" not in text:
        yield f"the newest opset of the standard is {newest}"
    for row in rows():
        if row.domain == OUR_DOMAIN or (row.domain, row.op_type) in WITHOUT_SCHEMA:
            continue
        versions = known[row.domain, row.op_type]
        for version, schema in sorted(versions.items()):
            later = min((v for v in versions if v > version), default=sys.maxsize)
            # The first version of an operator stands for older opsets too.
            begin = row.since if version == min(versions) else version
            opset = max(begin, row.since)
            if not (version < row.end and later > opset):
                continue
            inputs, outputs, attributes = of_schema(schema)
            here = [[e for e in part if e.first <= opset < e.end] for part in row.parts]
            plain = [[(e.name, e.mark.rstrip("!")) for e in part] for part in here[:2]]
            for what, found, expected in [("inputs", plain[0], inputs), ("outputs", plain[1], outputs),
                                          ("attributes", sorted(e.name for e in here[2]), attributes)]:
                if found != expected:
                    yield f"{row.domain} {row.op_type}, opset {opset}: {what} {found}, not {expected}"


def main():
    if sys.argv[1:] != ["--read"]:
        import python_environment

        python_environment.enter()
        lines = list(differences())
    else:
        lines = list(unread())
    for line in lines:
        print(line)
    count = len(list(rows()))
    print(f"{count} rows, {len(lines)} to mend")
    sys.exit(bool(lines) or not count)


if __name__ == "__main__":
    main()
