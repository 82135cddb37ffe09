# Bytes of an enemy: coverage-guided fuzzing, for as long as one likes, which needs a nightly compiler; and what it has found,
# random scripts, and a hostile process beside others, under the address sanitizer where there is such a compiler. Included
# by the Makefile.

FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= 1
FUZZ_TARGETS ?= object text
FUZZ_DIR = $(abspath $(TARGET))/fuzz
NIGHTLY_HOST = $$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz would set.
FUZZ_FLAGS = --cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0

.PHONY: fuzz fuzz-build test-hostile
fuzz-build:
	RUSTFLAGS='$(FUZZ_FLAGS)' rustup run nightly cargo build --quiet --release --manifest-path fuzz/Cargo.toml \
		--target $(NIGHTLY_HOST) --target-dir $(FUZZ_DIR)

# Goes on where it was: its corpus is in $(TARGET)/fuzz/corpus, and begins with the one that is committed. What does harm is
# kept in $(TARGET)/fuzz/finds.
fuzz:
	@if tests/need_rust.sh nightly; then $(MAKE) --no-print-directory fuzz-build && \
		for t in $(FUZZ_TARGETS); do mkdir -p $(FUZZ_DIR)/corpus/$$t $(FUZZ_DIR)/finds; \
			ASAN_OPTIONS=detect_leaks=0 $(FUZZ_DIR)/$(NIGHTLY_HOST)/release/$$t -max_total_time=$(FUZZ_SECONDS) \
			-jobs=$(if $(filter 1,$(FUZZ_JOBS)),0,$(FUZZ_JOBS)) -timeout=30 -max_len=600 -rss_limit_mb=2048 -malloc_limit_mb=512 \
			-use_value_profile=1 -print_final_stats=1 -artifact_prefix=$(FUZZ_DIR)/finds/$$t- \
			$(FUZZ_DIR)/corpus/$$t tests/hostile/corpus/$$t tests/hostile/corpus/finds || exit 1; done; fi

# The short form; NETSHM_ROUNDS makes it longer. As shipped, but with the address sanitizer where there is a nightly compiler.
HOSTILE = CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false
HOSTILE_TESTS = --test hostile_peer --test hostile_bytes

test: test-hostile
test-hostile:
	@if tests/need_rust.sh nightly; then \
		$(HOSTILE) RUSTFLAGS=-Zsanitizer=address NETSHM_SANITIZED=1 ASAN_OPTIONS=detect_leaks=0 \
		rustup run nightly cargo test --quiet --locked --target-dir $(abspath $(TARGET))/asan --target $(NIGHTLY_HOST) \
		$(HOSTILE_TESTS); \
	else $(HOSTILE) $(CARGO) test --quiet --locked --target-dir $(abspath $(TARGET))/hostile $(HOSTILE_TESTS); fi
