# Addresses, leaks and undefined behaviour: the library itself instrumented, under its Rust tests and under the C suites; a
# Rust test that does much under valgrind, which sees what assembly touches as well; Miri over what needs no kernel. Part of
# make test-long. Included by the Makefile.

ASAN_DIR = $(abspath $(TARGET))/asan
# leak_check: children of tests, which leave without exit handlers, look for leaks before they do.
ASAN_ENVIRONMENT = RUSTFLAGS='-Zsanitizer=address --cfg leak_check' CARGO_PROFILE_DEV_OPT_LEVEL=1 \
	CARGO_PROFILE_DEV_DEBUG=line-tables-only
ASAN_RUN = $(ASAN_ENVIRONMENT) $(1) rustup run nightly cargo test --locked --target-dir $(ASAN_DIR) --target $(NIGHTLY_HOST) $(2)
LEAKS_BUT = ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$(abspath tests/asan)/$(1):print_suppressions=0
# Without those that count system calls or address space, or let processes die at stores.
ASAN_RUST_TESTS := --lib --test smoke --test typed --test roots --test walk --test watch
# In forked children some of what their parents had is lost on purpose.
ASAN_FORKED_TESTS := --test model --test array --test primitive --test rescue --test slices_edges
# Children of processes with threads: who looks for leaks there does not find these threads' memory.
ASAN_TESTS_WITHOUT_LEAKS := --test processes --test thread_end

.PHONY: test-sanitizers test-asan-rust test-asan-c test-valgrind-rust test-miri
test-sanitizers: test-asan-rust test-asan-c test-valgrind-rust

test-asan-rust:
	@if tests/need_rust.sh nightly; then \
		$(call ASAN_RUN,$(call LEAKS_BUT,suppressions.threads),$(ASAN_RUST_TESTS)) && \
		$(call ASAN_RUN,$(call LEAKS_BUT,suppressions),$(ASAN_FORKED_TESTS)) && \
		$(call ASAN_RUN,ASAN_OPTIONS=detect_leaks=0,$(ASAN_TESTS_WITHOUT_LEAKS)); fi

test-asan-c: lib
	@if tests/need_rust.sh nightly; then $(ASAN_ENVIRONMENT) tests/asan/c.sh "$(abspath $(BUILD))" "$(CC)" "$(ASAN_DIR)"; fi

# Its children are looked into as well. What is reachable at their end is no leak.
VALGRIND_RUNNER = valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
	--errors-for-leak-kinds=definite
VALGRIND_RUST_TESTS := --test model
VALGRIND_ROUNDS ?= 200

test-valgrind-rust:
	@if c_tests/need.sh valgrind valgrind; then NETSHM_ROUNDS=$(VALGRIND_ROUNDS) $(CARGO_TEST) \
		--config "target.'cfg(unix)'.runner = '$(VALGRIND_RUNNER)'" --features inject --target-dir $(TARGET)/inject \
		$(VALGRIND_RUST_TESTS); fi

# Of what maps no file, locks none and forks no process, that which takes Miri less than a minute. It judges aliasing, alignment,
# uninitialised bytes and races there.
MIRI_TESTS := format:: segment::lot log:: typed:: types::tests::the_bytes txn::chunk

test-miri:
	@if tests/need_rust.sh nightly miri; then PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation \
		rustup run nightly cargo miri test --quiet --locked --target-dir $(abspath $(TARGET))/miri --lib -- $(MIRI_TESTS); fi
