# netshm: build, test, install. `make help` lists the targets.

CARGO ?= cargo
CC ?= cc
CXX ?= c++
PREFIX ?= /usr/local
DESTDIR ?=
INSTALL ?= install
TARGET ?= target
BUILD ?= build
BENCH_KEYS ?= 1000000
BENCH_ROUNDS ?= 5
GROWTH_KEYS ?= 1000000

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION := 0
LIBS_PRIVATE := $(shell sed -n 's/^Libs.private: //p' netshm.pc.in)

# Where tests link from: the library as it will be installed, with its symlinks.
LIBDIR := $(BUILD)/lib
INJECTDIR := $(BUILD)/inject
HEADER_TOOL := $(CARGO) run --quiet --locked --manifest-path tools/header/Cargo.toml --target-dir $(BUILD)/header --
CARGO_TEST = tests/roomy.sh $(CARGO) test
SUB = tests/roomy.sh $(MAKE) --no-print-directory -C c_tests BUILD=$(abspath $(BUILD)) CC="$(CC)" CXX="$(CXX)" \
	LIBS_PRIVATE="$(LIBS_PRIVATE)"

.PHONY: all build lib inject help header check-header test test-rust test-c test-c-variants test-c-panic \
	test-c-valgrind test-c-sanitizers gates check-symbols check-abi check-soname check-install check-msrv check-msrv-all \
	lint test-readme test-long test-handover install clean \
	bench bench-full bench-report bench-peers peers bench-map bench-instructions bench-wake bench-array bench-growth \
	bench-large bench-walk bench-huge bench-sim

all: build

help:
	@echo 'build (default), install (PREFIX, DESTDIR), header, check-header, clean'
	@echo 'test: test-rust test-c gates lint test-readme test-tutorial test-reference test-ocaml test-examples test-runtimes'
	@echo '      test-models test-tsan-c'
	@echo 'test-long: test, and the long forms (by NETSHM_KILLS=10000, else 1,000,000 kills), test-tsan, test-sanitizers,'
	@echo '      test-miri, check-msrv-all'
	@echo 'test-c: test-c-variants test-c-panic test-c-valgrind test-c-sanitizers'
	@echo 'demo (FILES, KILL), kill-peers (KILLS), coverage (ROOMS)'
	@echo 'fuzz (FUZZ_SECONDS), test-hostile'
	@echo 'bench: bench-peers (BENCH_ROUNDS, BENCH_ARGS), bench-map (BENCH_KEYS; with bench-instructions), bench-array, -wake,'
	@echo '       -growth (GROWTH_KEYS), -large, -walk, -huge, one after the other; apart, as they are long: bench-full, bench-sim;'
	@echo '       bench-report'
	@echo 'gates: check-header check-symbols check-calls check-abi check-soname check-install check-msrv check-instructions'
	@echo '       record-instructions (what check-instructions compares with), check-msrv-all'

build: lib

lib:
	$(CARGO) build --release --lib --target-dir $(TARGET)
	@mkdir -p $(LIBDIR)
	@cmp -s $(TARGET)/release/libnetshm.a $(LIBDIR)/libnetshm.a || cp $(TARGET)/release/libnetshm.a $(LIBDIR)/
	@cmp -s $(TARGET)/release/libnetshm.so $(LIBDIR)/libnetshm.so.$(VERSION) || \
		cp $(TARGET)/release/libnetshm.so $(LIBDIR)/libnetshm.so.$(VERSION)
	@ln -sf libnetshm.so.$(VERSION) $(LIBDIR)/libnetshm.so.$(SOVERSION)
	@ln -sf libnetshm.so.$(SOVERSION) $(LIBDIR)/libnetshm.so

# The library with hooks for tests.
inject:
	$(CARGO) build --lib --features inject --target-dir $(TARGET)/inject
	@mkdir -p $(INJECTDIR)
	@cmp -s $(TARGET)/inject/debug/libnetshm.a $(INJECTDIR)/libnetshm.a || \
		cp $(TARGET)/inject/debug/libnetshm.a $(INJECTDIR)/

# ---- The header: generated from src/ffi, committed. Ordinary builds do not touch it.

header:
	$(HEADER_TOOL) . include/netshm.h

check-header:
	@mkdir -p $(BUILD)
	@$(HEADER_TOOL) . $(BUILD)/netshm.h
	@diff -u include/netshm.h $(BUILD)/netshm.h || \
		{ echo 'include/netshm.h is not what src/ffi says. To mend it: make header'; exit 1; }
	@for s in c99 c11; do $(CC) -std=$$s -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c include/netshm.h || exit 1; done
	@$(CXX) -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ include/netshm.h
	@echo 'check-header: include/netshm.h is up to date, and clean as C99, C11 and C++11'

# ---- Tests

test: test-rust test-c gates lint test-readme test-handover
	@echo 'make test: all passed'

# Once as users get it, once with the hooks that let a process die at its k-th store. The stepping test drives the
# release library.
RECORD_TESTS = array primitive array_death array_slices growth space forks read_only roots roots_processes typed

test-rust: lib
	$(CARGO_TEST) --lib --target-dir $(TARGET)
	NETSHM_SO=$(abspath $(LIBDIR))/libnetshm.so $(CARGO_TEST) --features inject --tests --target-dir $(TARGET)/inject
	NETSHM_LOCKING=record NETSHM_ROUNDS=1000 $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject \
		--test deadlock -- circle count
	NETSHM_LOCKING=record $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test deadlock -- dead retry read
	NETSHM_LOCKING=record NETSHM_KILLS=60 $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test kill
	NETSHM_LOCKING=record $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test model -- among
	NETSHM_LOCKING=record $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test processes \
		-- at_once eight_threads many_threads stopped in_the_middle
	NETSHM_LOCKING=record $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject \
		--test death -- whole_object groups recovery
	NETSHM_LOCKING=record $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject \
		$(addprefix --test ,$(RECORD_TESTS))
	NETSHM_LOCKING=record $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test fairness
	NETSHM_CHECKSUMS=1 NETSHM_KILLS=60 $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test kill
	NETSHM_CHECKSUMS=1 $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test model -- among
	NETSHM_CHECKSUMS=1 $(CARGO_TEST) --features inject --target-dir $(TARGET)/inject --test array --test array_slices \
		--test primitive
	$(CARGO_TEST) --doc --target-dir $(TARGET)

test-c: test-c-variants test-c-panic test-c-valgrind test-c-sanitizers

test-c-variants: lib
	$(SUB) variants

test-c-panic: inject
	$(SUB) panic

test-c-valgrind: lib
	@if c_tests/need.sh valgrind valgrind; then $(SUB) valgrind; fi

test-c-sanitizers: lib
	$(SUB) sanitizers

# The long forms: every store, the quarantine of freed memory; all C variants under valgrind. Without NETSHM_KILLS the long form
# of `--test kill` is 1,000,000 kills: hours, which may be interrupted.
test-long: test
	NETSHM_LONG=1 NETSHM_KILLS=$${NETSHM_KILLS:-10000} NETSHM_SO=$(abspath $(LIBDIR))/libnetshm.so \
		$(CARGO_TEST) --release --features inject --tests --target-dir $(TARGET)/inject
	@if c_tests/need.sh valgrind valgrind; then $(SUB) valgrind-all; fi
	@$(MAKE) --no-print-directory check-msrv-all test-tsan test-sanitizers test-miri

gates: check-header check-symbols check-calls check-abi check-soname check-install check-msrv

check-symbols: lib
	@nm -D --defined-only $(LIBDIR)/libnetshm.so | awk '{ print $$3 }' | LC_ALL=C sort > $(BUILD)/symbols.txt
	@diff -u c_tests/symbols.txt $(BUILD)/symbols.txt || \
		{ echo 'Exported symbols have changed. If that is meant: cp $(BUILD)/symbols.txt c_tests/symbols.txt'; exit 1; }
	@for f in $$(cat c_tests/symbols.txt); do grep -q "\<$$f(" include/netshm.h || \
		{ echo "$$f is exported and not in the header"; exit 1; }; done
	@echo 'check-symbols: the exported symbols are those of c_tests/symbols.txt and of the header'

# Every function of the header is in the tests that all have in common.
.PHONY: check-calls
check-calls:
	@c_tests/calls.sh include/netshm.h

# The header's functions and structures, as C compiles them, beside those that Rust has compiled.
check-abi: lib
	@if c_tests/need.sh gdb gdb; then tests/abi/check.sh "$(abspath $(BUILD))" "$(CC)"; fi

check-soname: lib
	@readelf -d $(LIBDIR)/libnetshm.so | grep -q 'SONAME.*\[libnetshm\.so\.$(SOVERSION)\]' || \
		{ echo 'the SONAME is not libnetshm.so.$(SOVERSION)'; exit 1; }
	@readelf -d $(LIBDIR)/libnetshm.so | grep -q 'FLAGS_1.*NODELETE' || { echo 'NODELETE is missing'; exit 1; }
	@echo 'check-soname: SONAME libnetshm.so.$(SOVERSION), NODELETE'

check-install: lib
	@if c_tests/need.sh pkg-config pkg-config; then c_tests/install.sh "$(MAKE)" "$(abspath $(BUILD))" "$(CC)" "$(CXX)"; fi

lint:
	@if $(CARGO) fmt --version > /dev/null 2>&1; then $(CARGO) fmt --all --check; \
	else echo 'SKIP: lint: cargo fmt is not installed'; fi
	@if $(CARGO) clippy --version > /dev/null 2>&1; then \
		$(CARGO) clippy --all-targets --target-dir $(TARGET) -- -D warnings && \
		$(CARGO) clippy --all-targets --features inject --target-dir $(TARGET)/inject -- -D warnings; \
	else echo 'SKIP: lint: cargo clippy is not installed'; fi

# The oldest Rust that is promised compiles the library; the long form looks at tests, examples and tools as well.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
MSRV_CARGO = RUSTFLAGS=--cap-lints=allow CARGO_TARGET_DIR=$(BUILD)/msrv rustup run $(MSRV) cargo

check-msrv:
	@if tests/need_rust.sh $(MSRV); then $(MSRV_CARGO) build --quiet --locked --lib && \
		echo 'check-msrv: Rust $(MSRV) compiles the library'; fi

check-msrv-all: check-msrv
	@if tests/need_rust.sh $(MSRV); then $(MSRV_CARGO) check --quiet --locked --all-targets --features inject && \
		$(MSRV_CARGO) check --quiet --locked --manifest-path tools/header/Cargo.toml && \
		$(MSRV_CARGO) check --quiet --locked --manifest-path bench/map/Cargo.toml && \
		echo 'check-msrv-all: and tests, examples, benchmark and the header tool'; fi

# Every C program of the README is built and run; the first one is examples_c/hello.c.
test-readme: lib
	@c_tests/readme.sh "$(abspath $(BUILD))" "$(CC)"

test-handover: lib
	$(CC) -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror -Iinclude examples_c/handover.c \
		-o $(BUILD)/handover -L$(LIBDIR) -lnetshm -Wl,-rpath,$(abspath $(LIBDIR))
	timeout 60 $(BUILD)/handover

# Every C program of the tutorial is built and run, and what it prints is compared.
test: test-tutorial

.PHONY: test-tutorial
test-tutorial: lib
	@c_tests/tutorial.sh "$(abspath $(BUILD))" "$(CC)"

# The table of the reference's functions is complete, and the tests that it names are there.
test: test-reference

.PHONY: test-reference
test-reference:
	@tests/ocaml/need.sh; tests/reference.sh

# The same done by the reference, Ocamlnet, and by us, and compared.
test: test-ocaml

.PHONY: test-ocaml
test-ocaml: lib
	@if tests/ocaml/need.sh; then tests/ocaml/run.sh "$(abspath $(BUILD))" "$(CC)"; fi

# Which lines and branches the tests reach; with ROOMS, also the branches of these of which one side was never taken.
.PHONY: coverage
coverage:
	@RECORD_TESTS="$(RECORD_TESTS)" tests/coverage/run.sh "$(abspath $(BUILD))" $(ROOMS)

# ---- Measuring: figures and goals, beside peers, a private map and the limit. See docs/performance.md.

# All that is measured, one after the other, but for `bench-full` and `bench-sim`, which take long. A goal that is missed is
# printed, a wrong answer ends the run.
bench:
	@for what in peers map array wake growth large walk huge; do $(MAKE) --no-print-directory bench-$$what || exit 1; done

# Beside every peer, with the goals: `bench-peers` takes some minutes, `bench-full` an hour per round. Figures go to
# $(BUILD)/peers/results.jsonl and full.jsonl as well; `make bench-report` makes tables and charts of them.
bench-peers: peers
	$(BUILD)/peers/peers --rounds $(BENCH_ROUNDS) --json $(BUILD)/peers/results.jsonl $(BENCH_ARGS)

bench-full: peers
	$(BUILD)/peers/peers --full --rounds $(BENCH_ROUNDS) --json $(BUILD)/peers/full.jsonl $(BENCH_ARGS)

bench-report:
	$(if $(wildcard $(BUILD)/peers/results.jsonl),bench/report $(BUILD)/peers/results.jsonl docs/performance.md charts && cp $(BUILD)/peers/results.jsonl docs/performance.jsonl)
	$(if $(wildcard $(BUILD)/peers/full.jsonl),bench/report $(BUILD)/peers/full.jsonl docs/performance-full.md)

peers: lib
	$(CARGO) build --quiet --release --manifest-path bench/map/Cargo.toml --target-dir $(BUILD)/bench-map
	@mkdir -p $(BUILD)/peers
	@bench/peers/need.sh $(BUILD)/peers/have.mk
	@$(MAKE) --no-print-directory -f bench/peers/build.mk BUILD=$(BUILD) LIBDIR=$(LIBDIR) CXX="$(CXX)"

# How long it takes until a waiter is woken.
bench-wake: lib
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -Iinclude bench/wake.c -o $(BUILD)/wake -L$(LIBDIR) -lnetshm \
		-Wl,-rpath,$(abspath $(LIBDIR))
	$(BUILD)/wake

bench-map: lib
	$(CARGO) build --quiet --release --manifest-path bench/map/Cargo.toml --target-dir $(BUILD)/bench-map
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -Iinclude bench/bench.c -o $(BUILD)/bench -L$(LIBDIR) -lnetshm \
		$(BUILD)/bench-map/release/libbenchmap.so \
		-Wl,-rpath,$(abspath $(LIBDIR)) -Wl,-rpath,$(abspath $(BUILD))/bench-map/release
	$(BUILD)/bench $(BENCH_KEYS) $(BENCH_ROUNDS)
	@$(MAKE) --no-print-directory bench-instructions

# Instructions per operation, with the goals: among them what types cost beside the same bytes raw.
bench-instructions: lib $(BUILD)/instructions
	@if c_tests/need.sh valgrind valgrind; then bench/instructions.sh $(abspath $(BUILD))/instructions; fi

$(BUILD)/instructions: bench/instructions.c include/netshm.h | lib
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -Iinclude $< -o $@ -L$(LIBDIR) -lnetshm -Wl,-rpath,$(abspath $(LIBDIR))

# Instructions per operation beside those on file, bench/counts: a slow-down by code shows at once, on any machine.
.PHONY: check-instructions record-instructions
gates: check-instructions

# Hash seeds are random, and one table in ten has some keys that go the general way: code is slower if three tables are.
check-instructions record-instructions: %-instructions: lib $(BUILD)/instructions
	@if c_tests/need.sh valgrind valgrind; then \
		for try in 1 2 3; do bench/instructions.sh $(abspath $(BUILD))/instructions $* && exit 0; done; exit 1; fi

# Elements beside a mutex around a load or store, slices beside memcpy.
bench-array: lib
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -pthread -Iinclude bench/array.c -o $(BUILD)/bench-array \
		-L$(LIBDIR) -lnetshm -Wl,-rpath,$(abspath $(LIBDIR))
	$(BUILD)/bench-array

# Single adds from an empty table on; long values; walking; huge pages. RUNS: one run for each, with this number of keys
# (long values: of rounds).
bench-growth: RUNS = $(GROWTH_KEYS)
bench-large: RUNS = 9
bench-walk: RUNS = 10000 1000000
bench-huge: RUNS = 1000000
bench-growth bench-large bench-walk bench-huge: bench-%: lib
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -Iinclude bench/$*.c -o $(BUILD)/bench-$* -L$(LIBDIR) -lnetshm \
		-Wl,-rpath,$(abspath $(LIBDIR))
	@for n in $(RUNS); do $(BUILD)/bench-$* $$n || exit 1; done

# Which cache lines would move between 8, 64 and 256 processors, by simulation.
bench-sim: lib
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -pthread -no-pie -Iinclude bench/sim/trace.c -o $(BUILD)/sim-trace \
		-L$(LIBDIR) -lnetshm -Wl,-rpath,$(abspath $(LIBDIR))
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror bench/sim/coherence.c -o $(BUILD)/sim-coherence
	@if c_tests/need.sh valgrind valgrind; then bench/sim/run.sh $(BUILD); fi

# ---- Installing

install: lib
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	$(INSTALL) -m 755 $(LIBDIR)/libnetshm.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/
	ln -sf libnetshm.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libnetshm.so.$(SOVERSION)
	ln -sf libnetshm.so.$(SOVERSION) $(DESTDIR)$(PREFIX)/lib/libnetshm.so
	$(INSTALL) -m 644 $(LIBDIR)/libnetshm.a $(DESTDIR)$(PREFIX)/lib/
	$(INSTALL) -m 644 include/netshm.h $(DESTDIR)$(PREFIX)/include/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' netshm.pc.in > $(BUILD)/netshm.pc
	$(INSTALL) -m 644 $(BUILD)/netshm.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/

clean:
	rm -rf $(BUILD)
	$(CARGO) clean --target-dir $(TARGET)

include demo/demo.mk
include examples_c/run.mk
include fuzz/run.mk
include tests/asan/run.mk
include tests/models/run.mk
include tests/peers_kill/run.mk
include tests/runtimes/run.mk
include tests/tsan/run.mk
