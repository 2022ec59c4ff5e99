# Targets explain themselves: make help. Each installs what it lacks when it runs as root, and names the package otherwise.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
DIR ?= dev
HTTP ?= 127.0.0.1:5240
MACHINES ?= 3
IMAGE_DIR ?= image
# Boot loaders, for whoever boots real or QEMU machines. Lab machines in process do without.
LOADERS := pxelinux syslinux-common shim-signed grub-efi-amd64-signed grub-efi-amd64-bin ipxe
E2E := $(LOADERS) qemu-system-x86 qemu-utils ovmf iproute2 openssh-client ipmitool mmdebstrap squashfs-tools zstd xz-utils cpio dosfstools mtools e2fsprogs gdisk fdisk
# Programs that check documents which we render.
READERS := libxml2-utils shellcheck python3 python3-configobj python3-jinja2 python3-jsonpatch python3-jsonschema python3-netifaces python3-oauthlib python3-requests python3-serial python3-yaml
CORE := ./storage/... ./provisioner/... ./server/... ./bootsrv/... ./lab ./cmd/ingot/... ./api/...

# The agent runs on machines of either architecture; both are static.
GODIR = $(shell scripts/ensure-go.sh)
export PATH := $(GODIR):$(PATH)
# A Go that is older than go.mod asks for fetches the right one.
export GOTOOLCHAIN ?= auto
export CGO_ENABLED ?= 0

.PHONY: help run test build generate lint race fuzz e2e e2e-full e2e-clients e2e-juju e2e-typescript e2e-python bench image clean go

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

go:
	@go version >/dev/null || { echo "Go is missing: run scripts/ensure-go.sh" >&2; exit 1; }

run: build ## build, start region, rack and lab machines in DIR (dev), perform the main job once, stay up
	@bin/ingot show --dir $(DIR) --http $(HTTP) --machines $(MACHINES)

build: go ## build bin/ingot and bin/ingot-agent-{amd64,arm64}
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ingot ./cmd/ingot
	GOARCH=amd64 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ingot-agent-amd64 ./cmd/ingot-agent
	GOARCH=arm64 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ingot-agent-arm64 ./cmd/ingot-agent

generate: go ## write types, routes, SDK and tables from openapi/*.yaml
	go generate ./openapi/...
	@gofmt -w api/*_gen.go api/client/*_gen.go server/oapi/*_gen.go

test: go ## all tests that need no virtual machine, storage on SQLite and on a private PostgreSQL
	@if [ "$$(id -u)" = 0 ]; then scripts/need.sh $(READERS); fi
	@# Real readers of what we write for installed systems; the tests of those that cannot be fetched skip.
	if [ "$$(id -u)" = 0 ]; then eval "$$(scripts/consumers.sh || echo true)"; fi; scripts/postgres-test.sh go test -timeout 30m $(TESTFLAGS) ./...

lint: go ## gofmt, go vet, import rules
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); if [ -n "$$bad" ]; then echo "not formatted (gofmt -w):"; echo "$$bad"; exit 1; fi
	go vet ./...
	go vet -C e2e/clients ./...
	go test ./internal/rules

race: go ## the core packages under the race detector
	@scripts/need.sh gcc libc6-dev
	CGO_ENABLED=1 go test -race -short -timeout 30m $(TESTFLAGS) $(CORE)

fuzz: go ## each fuzz target for FUZZTIME (10s); FUZZ='server Fuzz' chooses
	scripts/fuzz.sh $${FUZZTIME:-10s} $(if $(FUZZ),'$(FUZZ)')

e2e-clients: build ## gomaasclient and gomaasapi against lab machines
	cd e2e/clients && go test -count=1 $(TESTFLAGS) .

e2e-juju: build ## Juju's own MAAS provider against lab machines; the first time it compiles a good part of Juju, for some minutes
	cd e2e/juju && go test -count=1 $(TESTFLAGS) .

e2e-qemu: build ## one BIOS and one UEFI machine with real firmware through their whole life, over region and rack, with gomaasclient
	@scripts/need.sh $(E2E)
	images=$$(bin/ingot image build) && cd e2e/clients && INGOT_QEMU=1 INGOT_IMAGES=$$images go test -count=1 -v -timeout 45m ./machines

e2e-typescript: go ## a TypeScript client of the published documents: generated, compiled strictly, used against a server
	@command -v node >/dev/null && command -v npm >/dev/null || scripts/need.sh nodejs npm
	go test -count=1 -tags typescript $(TESTFLAGS) ./e2e/typescript

e2e-python: go ## a Python client of the published documents: generated, compiled with warnings as errors, used against a server
	@command -v node >/dev/null && command -v npm >/dev/null || scripts/need.sh nodejs npm
	@scripts/need.sh default-jre-headless python3 python3-urllib3 python3-dateutil python3-six python3-certifi
	go test -count=1 -tags python $(TESTFLAGS) ./e2e/python

e2e: build e2e-clients e2e-juju e2e-typescript e2e-python e2e-qemu ## real clients on lab machines, and machines with real firmware

e2e-full: e2e ## e2e, and what takes longer: the agent alone on QEMU machines of each firmware, with each kind of storage
	INGOT_QEMU=1 go test -count=1 -v -timeout 120m ./lab/qemu

bench: build ## lists, filters, tag definitions and allocate at 10,000 machines on SQLite and PostgreSQL, each beside its bar; DHCP, TFTP, HTTP, start-up, memory
	go test -run '^$$' -bench . -benchtime $${BENCHTIME:-2s} ./bootsrv/... ./storage/... ./provisioner/... ./server/...
	scripts/postgres-test.sh go run ./e2e/bench -bin bin/ingot $(BENCHFLAGS)
	go run ./e2e/bench/images -bin bin/ingot

image: build ## build the light initramfs, the full ephemeral image and a deployable root image into IMAGE_DIR (image)
	@scripts/need.sh $(E2E)
	bin/ingot image build --out $(IMAGE_DIR)

clean: ## remove what make built; dev/ and image/ stay
	rm -rf bin
