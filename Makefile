# Balai. `make` or `make help` explains.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO ?= go
export GOTOOLCHAIN ?= local
WEB := node/web
DIST := $(WEB)/dist/index.html
WEBSRC := $(shell find $(WEB)/src $(WEB)/messages $(WEB)/public $(WEB)/project.inlang -type f 2>/dev/null) $(WEB)/package.json $(WEB)/index.html $(WEB)/vite.config.ts

.DEFAULT_GOAL := help
.PHONY: help demo run build ui test check unit race e2e lab bench soak fmt lint generate deps clean

help: ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## a community node and three people on this machine, with links to open
	bin/balai demo

run: build ## your own daemon
	bin/balai run

build: ui ## bin/balai with its page
	$(GO) build -buildvcs=auto -trimpath -ldflags "-s -w" -o bin/balai ./cmd/balai

ui: $(DIST) ## the page alone

$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	test/setup node
	@# not npm ci: it fails where the registry lacks optional packages of other platforms
	cd $(WEB) && npm install --no-save --no-audit --no-fund
	@touch $@

$(DIST): $(WEB)/node_modules/.package-lock.json $(WEBSRC)
	cd $(WEB) && npm run build
	@touch $@

deps: ## install what the tests need (Debian, as root); elsewhere say what to install
	test/setup all

test: deps build ## everything that must pass
	test/run

check: lint ## formatting, vet, staticcheck, the page's types
	cd $(WEB) && npm run check

unit: ui ## Go tests only
	$(GO) test ./...

e2e: deps build ## the page in real browsers over real daemons
	cd $(WEB) && npm run e2e

bench: deps build ## the table of figures, also in bench.json
	$(GO) run ./test/bench

soak: ui ## the long versions of the randomised tests, a million inputs for each fuzzer
	BALAI_SOAK=1 $(GO) test -timeout 180m ./identity/... ./room/... ./node/...
	BALAI_SOAK=1 $(GO) test -timeout 60m -p 1 ./test/trust/... ./test/lab

lab: deps ui ## people behind routers, relays killed, many listeners: in network namespaces (root)
	$(GO) test -v -timeout 15m ./test/lab

fmt: ## format the Go code
	$(GO) tool gofumpt -l -w cmd identity node room test

lint: ## what must be clean
	@bad=$$($(GO) tool gofumpt -l cmd identity node room test); if [ -n "$$bad" ]; then echo "not formatted:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

generate: ## room/wire from balai.proto; needs protoc
	$(GO) build -o bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	cd room/wire && PATH="$(CURDIR)/bin:$$PATH" protoc --go_out=. --go_opt=paths=source_relative balai.proto

clean: ## remove what was built
	rm -rf bin bench.json $(WEB)/node_modules $(WEB)/dist/*
