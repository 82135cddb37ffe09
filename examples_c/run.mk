# The examples: each is built, run, and judges itself by its exit status. Included by the Makefile.

EXAMPLES_DIR := $(BUILD)/examples
EXAMPLES := hello http_server primes lookup tutorial

.PHONY: test-examples
test: test-examples

$(EXAMPLES_DIR)/%: examples_c/%.c include/netshm.h $(LIBDIR)/libnetshm.a
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 -Wall -Wextra -Werror -Iinclude $< -o $@ -L$(LIBDIR) -lnetshm -Wl,-rpath,$(abspath $(LIBDIR)) -pthread

# hello is run by test-readme, which knows what it leaves behind.
test-examples: lib
	@$(MAKE) --no-print-directory $(EXAMPLES:%=$(EXAMPLES_DIR)/%)
	timeout 120 $(EXAMPLES_DIR)/tutorial
	timeout 120 $(EXAMPLES_DIR)/http_server
	timeout 120 $(EXAMPLES_DIR)/primes
	timeout 120 $(EXAMPLES_DIR)/lookup try src
	@echo 'test-examples: all have judged themselves to be right'
