# Needs Go, git and make. `make help` lists what there is.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
EXAMPLES := $(patsubst %/go.mod,%,$(wildcard examples/*/*/go.mod))

.DEFAULT_GOAL := build
.PHONY: build demo test conformance bench lint cross examples generate help

build: ## make bin/shoal, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/shoal ./cmd/shoal

demo: build ## start the shop of five services and show it at work; DEMO=check checks it and exits
	@go build -o bin/demo ./examples/shop/demo && exec bin/demo

# The race detector needs a C compiler and its headers; SHOAL_SKIPS=fail makes a test that skips for
# want of a package a failure. Nothing is taken from Go's cache of results, which does not know of the binaries that tests build.
test: build ## run every test, with the race detector where a C compiler exists
	@if CGO_ENABLED=1 go build -race -o /dev/null runtime/cgo 2>/dev/null; then race=-race; \
	else race=; echo "There is no C compiler here: testing without the race detector."; fi; \
	export CGO_ENABLED=$${race:+1}; export CGO_ENABLED=$${CGO_ENABLED:-0}; \
	if [ "$$SHOAL_SKIPS" = fail ]; then go run ./test/skips go test $$race -count=1 -json -timeout 30m ./...; \
	else go test $$race -count=1 -timeout 30m ./...; fi

conformance: ## run h2spec and gRPC's interop client against Shoal, and every ambiguous message, over every path
	go test -tags conformance -count=1 -timeout 20m ./test/conformance

bench: build ## measure, and write test/bench/out/latest.json; figures are printed, never asserted
	@test/bench/run.sh

lint: ## formatting, vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	go tool staticcheck -tags conformance ./test/conformance
	cd test/bench/broker/rabbit && go vet .

cross: ## build and vet for darwin and windows, where sidecars run in explicit mode
	GOOS=darwin CGO_ENABLED=0 go build ./... && GOOS=darwin CGO_ENABLED=0 go vet ./...
	GOOS=windows CGO_ENABLED=0 go build ./... && GOOS=windows CGO_ENABLED=0 go vet ./...

examples: ## build and vet the example services, each a module of its own
	@for dir in $(EXAMPLES); do echo "$$dir"; \
		(cd $$dir && CGO_ENABLED=0 go build -o /dev/null . && CGO_ENABLED=0 go vet ./... && go mod verify >/dev/null) || exit 1; done

generate: ## make api/gen again from api/proto (needs protoc)
	api/generate.sh

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
