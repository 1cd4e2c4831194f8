# Two commands matter: make demo and make test. Both set themselves up; both want root (sudo) for the tools tree and the image.
SHELL := /bin/bash
GO ?= $(or $(shell command -v go),/usr/local/go/bin/go)
# Guests, image and tests are built by one toolchain; Go fetches it, by its checksum, where another is installed.
export GOTOOLCHAIN := $(shell sed -n "s/^toolchain //p" go.mod)
# One way to compile, so that the command line, vet and the tests share what Go keeps; the guest's programs are built alike.
export GOFLAGS := -buildvcs=false -trimpath
BIN := build/bin/chrysalis
DOUBLE := build/double/double
CHAIN := build/bin/localchain
PAGE := build/page/page
# The page inside the command line: what stands for the empty file of the sources, where it was made.
INSIDE := build/inside/inside.json
# The modules of this tree: CONTRIBUTING.md says why there are several.
MODULES := $(patsubst %/,%,$(dir $(shell git ls-files '*go.mod')))

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: image ## build, boot, verify, ask, print receipt and claim, stop (KEEP=1 leaves the guest running; PLATFORM=tdx or sev-snp runs it so, on software; PAY=1 pays for it, on a chain of one's own)
	@if [ -n "$(PAY)" ]; then $(GO) build -C tools -o ../$(CHAIN) ./localchain && tools/e2e/pay.sh $(BIN) $(CHAIN); \
	else KEEP=$(KEEP) PLATFORM=$(PLATFORM) tools/e2e/demo.sh $(BIN); fi

test: beside check ## everything: checks, unit tests, and the guests under QEMU
	@$(MAKE) --no-print-directory unit wasm
	@echo "== end to end: guests under QEMU, and beside them the image built again on one core"
	CHRYSALIS_E2E=1 $(GO) test -C tools -vet=off -count=1 -timeout 60m -parallel 3 -v ./e2e/

unit: ## tests of packages alone, no guest; go test ./... runs those of the root module
	@echo "== unit tests: packages alone, no guest"
	@set -e; export CHRYSALIS_SOURCES=$$(git ls-files -z '*.go' sdk | xargs -0 cat | sha256sum); \
		for m in $(MODULES); do echo "$(GO) test -C $$m ./..."; $(GO) test -C $$m -vet=off ./...; done

race: ## what many clients reach at a time, and who keeps engines, with Go's race detector (which wants a C compiler)
	CGO_ENABLED=1 $(GO) test -race -vet=off ./runtime/internal/gateway ./runtime/internal/keeper ./runtime/role ./runtime/client
	CGO_ENABLED=1 $(GO) test -C runtime/enginehost -race -vet=off ./...
	CGO_ENABLED=1 $(GO) test -C tools -race -vet=off ./internal/proxy

check: ## gofmt, vet, staticcheck
	@echo "== gofmt, vet, staticcheck"
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change: $$out"; exit 1; fi
	@set -e; for m in $(MODULES); do echo "$(GO) vet -C $$m ./..."; $(GO) vet -C $$m ./...; done
	@set -e; staticcheck=$$($(GO) tool -C tools -n staticcheck); for m in $(MODULES); do echo "staticcheck $$m"; (cd $$m && $$staticcheck ./...); done

# Where the command line runs; verbs that start guests say there that they need Linux.
OTHERS := linux/amd64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 linux/arm64

# No version has been published: packages are named by the day of the sources.
VERSION ?= 0~$(shell git log -1 --format=%cd --date=format:%Y%m%d)
# npm takes three numbers.
packages: cross $(BIN) $(PAGE) ## tarballs, Debian packages and bills of materials of the command line, and the SDK's, into build/packages
	@rm -rf build/sdk && $(PAGE) sdk -version $(patsubst 0~%,0.0.0-%,$(VERSION)) -o build/sdk
	@$(BIN) release package --with $$(echo build/sdk/*.tgz) --with build/inside/chrysalis.html $(foreach s,$(OTHERS),build/cross/chrysalis-$(subst /,-,$(s))$(if $(findstring windows,$(s)),.exe)) --version $(VERSION) -o build/packages

cross: $(PAGE) ## the command line for all systems, with the page inside, into build/cross
	@$(PAGE) inside -o build/inside
	@set -e; for s in $(OTHERS); do out=build/cross/chrysalis-$${s/\//-}; [ $${s%/*} = windows ] && out=$$out.exe; echo "$$out"; \
		CGO_ENABLED=0 GOOS=$${s%/*} GOARCH=$${s#*/} $(GO) build -C tools -overlay $(abspath $(INSIDE)) -ldflags='-s -w -X main.version=$(VERSION)' -o ../$$out ./chrysalis; done

# What clients import and runs without sockets; asked for where it is needed, for go list takes a second.
CLIENT = $(shell $(GO) list ./attest/... ./measure/... ./runtime/claim ./runtime/receipt ./runtime/envelope/... ./runtime/client/proof | grep -v '/ratls\|/coll')

wasm: $(PAGE) ## what clients import, tested as WebAssembly under node, and the client's program for pages and its size
	@echo "== WebAssembly: what clients import, and the client's program"
	@$(PAGE) wasm -o build/page
	@if command -v node >/dev/null; then \
		node tools/wasm/verify.mjs build/page/chrysalis.wasm build/page/wasm_exec.js attest/testdata/guest && \
		PATH="$$($(GO) env GOROOT)/lib/wasm:$$PATH" GOOS=js GOARCH=wasm $(GO) test -short $(CLIENT); \
	else echo "skipped: no node here to run them; they build"; GOOS=js GOARCH=wasm $(GO) vet $(CLIENT); fi

page: $(PAGE) ## one file that verifies a guest in a browser and talks to it, into build/page (GUEST=URL POLICY=FILE ROOTS=FILE LIST=FILE), and into the command line
	@$(PAGE) inside -o build/inside && $(MAKE) --no-print-directory $(BIN)
	@$(PAGE) html $(if $(GUEST),-guest $(GUEST)) $(if $(POLICY),-policy $(POLICY)) $(if $(ROOTS),-roots $(ROOTS)) $(if $(LIST),-release-list $(LIST)) -o build/page

image: $(BIN) $(DOUBLE) ## tools tree, release folder, engine and model volumes (cached by what they are made of)
	@$(BIN) image build --out build/release
	@$(DOUBLE) plugin -tools-tree build/tools-tree -o build/double

beside: $(BIN) $(DOUBLE) ## image, and what tests need beside it: libvirt, browsers, an engine that hears
	@$(BIN) image build --tests --out build/release
	@$(DOUBLE) plugin -tools-tree build/tools-tree -o build/double

matrix: image ## the registers over versions of QEMU, memory sizes and CPU counts, into measure/MATRIX.md
	@CHRYSALIS_MATRIX=1 $(GO) test -C tools -count=1 -run '^TestMatrix$$' ./e2e/

console: image ## boot the image with a console and show what a guest says to itself: kernel, init, services
	@CHRYSALIS_CONSOLE=1 $(GO) test -C tools -count=1 -run '^TestConsole$$' -v ./e2e/

BOOTS ?= 20
boots: image ## BOOTS boots (default 20) of each platform, each with its power cut, verified and asked
	@CHRYSALIS_BOOTS=$(BOOTS) $(GO) test -C tools -count=1 -timeout 120m -parallel 2 -run '^TestBoots$$' -v ./e2e/

# verity claim chain verify gpu gateway journal boot platform bytes measure image; 1: all
ROWS ?= 1
bench: image ## every number beside its reference, measured in the same run (ROWS="gateway boot": these alone)
	@CHRYSALIS_BENCH="$(ROWS)" $(GO) test -C tools -count=1 -timeout 40m -run '^TestBench$$' -v ./e2e/
	@[ "$(ROWS)" != 1 ] || CHRYSALIS_BENCH=1 $(GO) test -C tools -count=1 -p 1 -timeout 10m -run '^TestBench$$' -v ./internal/page/ ./internal/proxy/

differential: ## what is computed and judged here, held against other people's programs
	@CHRYSALIS_DIFFERENTIAL=1 $(GO) test -vet=off -count=1 -run 'Oracle|Against|DcapQVL|Virtee|Genuine|Real|Replay|Boots|PCR7|MRTD' ./attest/tdx ./attest/sevsnp ./attest/nvidia ./measure/...
	@CHRYSALIS_DIFFERENTIAL=1 $(GO) test -C tools -vet=off -count=1 ./differential/

FUZZTIME ?= 10s
fuzz: ## each fuzz target for FUZZTIME (default 10s)
	@set -e; for file in $$(git grep -lE '^func Fuzz' -- '*_test.go'); do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+).*/\1/p' $$file); do \
			echo "== $$(dirname $$file) $$target"; $(GO) test -C $$(dirname $$file) . -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x; done; done

clean: ## remove what was built; downloads stay in build/cache
	rm -rf $(filter-out build/cache,$(wildcard build/*))

$(BIN): FORCE
	@[ -x $@ ] || echo "== the command line: the first time Go compiles all that it needs, for a minute or two"
	@$(GO) build -C tools $(if $(wildcard $(INSIDE)),-overlay $(abspath $(INSIDE))) -o ../$@ ./chrysalis

# What talks to guests from JavaScript is made by a program of its own, of which nothing goes into the command line.
$(PAGE): FORCE
	@$(GO) build -C tools -o ../$@ ./page

# The double of hardware links what forges evidence for tests, so it is a program of its own.
$(DOUBLE): FORCE
	@$(GO) build -C tools -o ../$@ ./double

FORCE:
.PHONY: help demo test unit race check cross packages wasm page image beside matrix console boots bench differential fuzz clean FORCE
