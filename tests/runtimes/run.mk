# The library as other languages' runtimes see it: straight from the header. Included by the Makefile.

RUNTIMES_ENVIRONMENT := NETSHM_LIBRARY=$(abspath $(LIBDIR))/libnetshm.so.$(SOVERSION) NETSHM_HEADER=include/netshm.h \
	CC="$(CC)"

.PHONY: test-runtimes
test: test-runtimes

test-runtimes: lib
	@if c_tests/need.sh python3 python3; then \
		$(RUNTIMES_ENVIRONMENT) timeout 120 python3 -B tests/runtimes/test_netshm.py; fi
	@if c_tests/need.sh luajit luajit; then \
		$(RUNTIMES_ENVIRONMENT) timeout 120 luajit tests/runtimes/test_netshm.lua; fi
