#!/bin/sh
# Makes api/gen from api/proto. Needs protoc (Debian: protobuf-compiler); the plugins are tool
# dependencies of go.mod.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin" google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
rm -rf gen
mkdir gen
PATH="$bin:$PATH" protoc -I proto --go_out=gen --go_opt=module=github.com/shoalrun/shoal/api/gen \
	--connect-go_out=gen --connect-go_opt=module=github.com/shoalrun/shoal/api/gen \
	$(find proto -name '*.proto')
