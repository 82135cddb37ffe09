# `make demo`: processes in four languages count words together; demo/drive.py tells how.
# Included by the Makefile, whose `lib` target and variables it uses.

# Text files or folders to count. None: the text that the repository and the machine have.
FILES ?=
# Who is killed: c, cpp, rust, python or any.
KILL ?= cpp

DEMO := $(BUILD)/demo
DEMO_FLAGS := -O2 -Wall -Wextra -Wpedantic -Werror -Iinclude
DEMO_LINK = -L$(LIBDIR) -lnetshm -Wl,-rpath,$(abspath $(LIBDIR))

.PHONY: demo demo-build

demo: demo-build
	@c_tests/need.sh python3 python3 || { echo 'demo: FAILED: one of its four languages is Python'; exit 1; }
	@NETSHM_LIBRARY=$(abspath $(LIBDIR))/libnetshm.so DEMO_PROGRAMS=$(abspath $(DEMO)) \
		python3 -B demo/drive.py --kill $(KILL) $(FILES)

demo-build: lib $(DEMO)/worker_c $(DEMO)/worker_cpp
	$(CARGO) build --release --example demo_worker --target-dir $(TARGET)
	@cp $(TARGET)/release/examples/demo_worker $(DEMO)/worker_rust

$(DEMO)/worker_c: demo/worker.c include/netshm.h | lib
	@mkdir -p $(DEMO)
	$(CC) -std=c99 $(DEMO_FLAGS) $< -o $@ $(DEMO_LINK)

$(DEMO)/worker_cpp: demo/worker.cpp include/netshm.h | lib
	@mkdir -p $(DEMO)
	$(CXX) -std=c++11 $(DEMO_FLAGS) $< -o $@ $(DEMO_LINK)
