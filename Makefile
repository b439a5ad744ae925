# The whole repository in a few words. `make help` lists them.
.PHONY: help build demo package site test check bench models operator operators bindings clean
.DEFAULT_GOAL := help

help:            ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

build: wasm-target ## the `lethe` program, at target/release/lethe, with its guests inside
	cargo build --release --package lethe-host --bin lethe --features webgpu,relaxed-guest
	target/release/lethe prepare

# The sandbox's guest is WebAssembly. Where rustup may install what rust-toolchain.toml names, this
# finds it there.
.PHONY: wasm-target
wasm-target:
	@[ -d "$$(rustc --print target-libdir --target wasm32-unknown-unknown)" ] || \
		rustup target add wasm32-unknown-unknown

demo: wasm-target ## reads a drawn digit natively and in a sandbox, and shows that it is forgotten
	@[ -e target/debug/examples/demo ] || echo "Building the engine, its WebAssembly guest and the \
	sandbox's host: some 150 crates, the last ones large. This takes minutes the first time."
	cargo run --package lethe-sandbox --example demo

# With QUICK=1 the modules are those of a debug build, as tests use them.
package: wasm-target ## the npm package, in web/pkg
	cd web && { [ -d node_modules ] || npm ci --no-audit --no-fund; } && node build.mjs $(if $(QUICK),--quick)

site: package    ## the site, in www/dist; `npm start` in www shows it
	cd www && { [ -d node_modules ] || npm ci --no-audit --no-fund; } && node build.mjs

test:            ## installs what the tests need, runs them all, ends with `N passed, N failed`
	python3 scripts/test.py

check: wasm-target ## formatting, lints, documentation and house rules; warnings are errors
	python3 scripts/check.py

bench: build     ## beside onnxruntime in one interleaved run; prints ratios
	python3 benches/compare.py

models:          ## makes the embedded models again
	python3 models/digits/train.py
	python3 models/vibration/train.py

operator:        ## a new operator's file from the template: make operator NAME=HardSwish
	python3 scripts/new_operator.py $(NAME)

bindings:        ## those of components, from their WIT files
	python3 scripts/bindings.py

operators:       ## docs/operators.md, from the tables in the engine
	python3 scripts/operators_page.py

clean:           ## removes everything that was built or installed here
	rm -rf target web/node_modules web/pkg www/node_modules www/dist
