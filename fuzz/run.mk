# Bytes of an enemy: coverage-guided fuzzing, for as long as one likes, which needs a nightly compiler; and what it has found,
# random scripts, and a hostile process beside others, under the address sanitizer where there is such a compiler. Included
# by the Makefile.

FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= 1
FUZZ_TARGETS ?= object text
FUZZ_DIR = $(abspath $(TARGET))/fuzz
NIGHTLY_HOST = $$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz would set. Of scripts for objects no byte is compared with anything: there it is left out that comparisons
# are traced, which takes more time than all else together.
FUZZ_FLAGS = --cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-simplifycfg-branch-fold-threshold=0 $(FUZZ_FLAGS_$(1))
FUZZ_FLAGS_text = -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_ARGS_object = -len_control=0 -max_len=400
FUZZ_ARGS_text = -use_value_profile=1 -max_len=600
FUZZ_FINDS_object = tests/hostile/corpus/finds
# Where memory was allocated is of no interest, but what was done with it is.
FUZZ_ASAN = detect_leaks=0:malloc_context_size=4:quarantine_size_mb=16

.PHONY: fuzz fuzz-build test-hostile
fuzz-build: $(FUZZ_TARGETS:%=fuzz-build-%)

fuzz-build-%:
	RUSTFLAGS='$(call FUZZ_FLAGS,$*)' rustup run nightly cargo build --quiet --release --manifest-path fuzz/Cargo.toml \
		--bin $* --target $(NIGHTLY_HOST) --target-dir $(FUZZ_DIR)/of-$*

# Goes on where it was: its corpus is in $(TARGET)/fuzz/corpus, and begins with the one that is committed. What does harm is
# kept in $(TARGET)/fuzz/finds.
fuzz:
	@if tests/need_rust.sh nightly; then $(MAKE) --no-print-directory $(FUZZ_TARGETS:%=fuzz-%); fi

fuzz-%: fuzz-build-%
	@mkdir -p $(FUZZ_DIR)/corpus/$* $(FUZZ_DIR)/finds
	ASAN_OPTIONS=$(FUZZ_ASAN) $(FUZZ_DIR)/of-$*/$(NIGHTLY_HOST)/release/$* -max_total_time=$(FUZZ_SECONDS) \
		-jobs=$(if $(filter 1,$(FUZZ_JOBS)),0,$(FUZZ_JOBS)) -timeout=30 -rss_limit_mb=2048 -malloc_limit_mb=512 \
		-print_final_stats=1 -artifact_prefix=$(FUZZ_DIR)/finds/$*- $(FUZZ_ARGS_$*) \
		$(FUZZ_DIR)/corpus/$* tests/hostile/corpus/$* $(FUZZ_FINDS_$*)

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
