# Two commands do everything on a fresh machine: `make run` and `make test`. `make help` lists the rest.

PREFIX  ?= /usr/local
DESTDIR ?=

GO      ?= go
BIN     := bin/jail
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# Static, and not position-independent: relocations would add a millisecond to each start, and nothing hostile runs in
# this address space. osusergo and netgo: glibc's own look-ups don't work in a static program.
BUILD   := -buildvcs=false -trimpath -tags osusergo,netgo
LDFLAGS := -s -w -X main.version=$(VERSION) -linkmode external -extldflags -static

.PHONY: run test models vm-test test-full figures build lint bench profile install generate clean help

run: ## set up, build, and run an example in a jail
	@scripts/setup.sh run
	@$(MAKE) --no-print-directory build
	@scripts/example.sh

# One package at a time: each looks for what the jails of its own tests have left on the machine.
test: ## set up, and run the tests (five minutes at most)
	@scripts/setup.sh test
	$(GO) run ./scripts/gotest -p 1 -count=1 -timeout=5m ./...

models: ## check the models of ipc with spin, and that each mutation of one is found
	@scripts/setup.sh models
	scripts/models.sh

vm-test: ## what depends on the kernel, on Debian's under qemu: cgroup v2, systemd, arm64, cgroup v1
	@scripts/setup.sh vm
	tests/vm/run.sh $(VM)

test-full: ## race detector, fuzzing, lint, other systems, generated files, sweeps, virtual machines
	@scripts/setup.sh full
	scripts/test-full.sh

figures: ## kills and faults beside bubblewrap, crun and runc, as SECURITY.md has them (half an hour, as root)
	@scripts/setup.sh figures
	@mkdir -p bin
	JAIL_SWEEP=1 JAIL_FIGURES=1000 $(GO) test -count=1 -timeout=2h -v -run 'OfPeers' ./tests/integration >bin/figures.log || { cat bin/figures.log; exit 1; }
	@grep -o 'figure: .*' bin/figures.log

build: ## bin/jail
	CGO_ENABLED=1 $(GO) build $(BUILD) -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/jail

lint: ## golangci-lint, which checks the import rules too
	scripts/lint.sh

bench: ## compare with bubblewrap, crun, runc and plain C, as ratios
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./tests/bench $(BENCH)

profile: ## where the time of one start goes
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory build
	scripts/profile.sh

install: build ## bin/jail to $(DESTDIR)$(PREFIX)/bin
	install -D -m 755 bin/jail '$(DESTDIR)$(PREFIX)/bin/jail'

generate: ## jail-init's assembly and the embedded filters
	$(GO) generate ./...

clean: ## what make built
	rm -rf bin

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
