# Data races, by ThreadSanitizer: in C programs, part of make test, and in the Rust tests that have threads, part of make
# test-long.
# All shared memory is accessed by atomics or by assembly, which it does not judge; it looks at the private memory: handles,
# sessions, caches, registries. Included by the Makefile.

TSAN_ENVIRONMENT = RUSTFLAGS=-Zsanitizer=thread CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only
TSAN_DIR = $(abspath $(TARGET))/tsan
TSAN_RUST_TESTS := eight_threads_on_one_handle threads_open_and_close_at_once a_detached_group_outlives_its_thread \
	many_threads_one_after_another without_a_change_the_time_passes threads_walk_while_keys_come_and_go \
	a_small_reservation_is_extended_under_threads_at_work os:: pmanage::

.PHONY: test-tsan test-tsan-c
test: test-tsan-c

test-tsan-c:
	@if tests/need_rust.sh nightly rust-src; then \
		$(TSAN_ENVIRONMENT) tests/tsan/c.sh "$(abspath $(BUILD))" "$(CC)" "$(TSAN_DIR)"; fi

# Scenarios stay in the process that has the threads: children of such a process are not judged.
test-tsan: test-tsan-c
	@if tests/need_rust.sh nightly rust-src; then \
		NETSHM_STAGE=here $(TSAN_ENVIRONMENT) rustup run nightly cargo test --locked -Zbuild-std --target-dir $(TSAN_DIR) \
		--target $$(rustup run nightly rustc -vV | sed -n 's/^host: //p') \
		--lib --test processes --test watch --test growth --test space -- --test-threads 1 $(TSAN_RUST_TESTS); fi
