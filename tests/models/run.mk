# Protocols gone through exhaustively: the model has to hold, and to see each of its faults. Included by the Makefile.

.PHONY: test-models
test: test-models

test-models:
	@mkdir -p $(BUILD)
	@if c_tests/need.sh python3 python3; then \
		for fault in no-recheck clear-late wake-one keep-on-release; do \
			python3 tests/models/watch_wakeup.py $$fault WCL > $(BUILD)/model.out; test $$? = 1 || \
			{ cat $(BUILD)/model.out; echo "watch_wakeup.py does not see the fault $$fault"; exit 1; }; done && \
		echo 'watch_wakeup.py sees each of four faults' && python3 tests/models/watch_wakeup.py; \
		for fault in keep-version no-log; do \
			python3 tests/models/single_word.py $$fault GSS > $(BUILD)/model.out; test $$? = 1 || \
			{ cat $(BUILD)/model.out; echo "single_word.py does not see the fault $$fault"; exit 1; }; done && \
		echo 'single_word.py sees each of two faults' && python3 tests/models/single_word.py; fi
