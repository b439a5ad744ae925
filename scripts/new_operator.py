#!/usr/bin/env python3
"""Creates the file of a new operator from operator_template.rs: `make operator NAME=HardSwish`.

It compiles and passes its own tests (as y = alpha * x); what remains is to make it the operator.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    if len(sys.argv) != 2 or not re.fullmatch(r"[A-Z][A-Za-z0-9]*", sys.argv[1]):
        sys.exit("usage: make operator NAME=HardSwish   (spelled as ONNX spells it)")
    name = sys.argv[1]
    # LSTM -> lstm, HardSwish -> hard_swish, QLinearConv -> q_linear_conv
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    path = ROOT / "engine" / "src" / "operators" / f"{snake}.rs"
    if path.exists():
        sys.exit(f"{path.relative_to(ROOT)} exists already")
    template = (ROOT / "scripts" / "operator_template.rs").read_text()
    path.write_text(template.replace("OPERATOR", name).replace("SNAKE", snake).replace("SINCE", "1"))
    subprocess.run(["rustfmt", "--edition", "2024", path], check=True)
    print(f"""made {path.relative_to(ROOT)}; now in engine/src/operators.rs, each in its place:
    mod {snake};
    ("ai.onnx", "{name}", 1, {snake}::{name}, "X -> Y : alpha"),
then write its reference and cases, fill parse, infer and run, and
    cargo test -p lethe-engine {snake} && make check""")


if __name__ == "__main__":
    main()
