# Protocols gone through exhaustively: each model has to hold, and to see each of its faults. Included by the Makefile.
# Those in Python are sequentially consistent and know deaths; those of loom know the memory model of C11 and no deaths.
# NETSHM_LONG=1: more processes, more preemptions.

.PHONY: test-models test-models-python test-models-loom
test: test-models

test-models: test-models-python test-models-loom

# MODEL.py, its faults with what has to take part (fault:kinds), the forms that have to hold, and further ones of the long form.
define model
	@for fault in $(2); do \
		python3 tests/models/$(1) $$(echo $$fault | tr : ' ') > $(BUILD)/model.out; test $$? = 1 || \
		{ cat $(BUILD)/model.out; echo "$(1) does not see the fault $$fault"; exit 1; }; head -n 1 $(BUILD)/model.out; done
	@for form in $(3) $(if $(NETSHM_LONG),$(4)); do \
		python3 tests/models/$(1) $$(echo $$form | tr : ' ') || exit 1; done
endef

test-models-python:
	@mkdir -p $(BUILD)
	@c_tests/need.sh python3 python3 || exit 0; $(MAKE) --no-print-directory run-models-python

.PHONY: run-models-python
run-models-python:
	$(call model,watch_wakeup.py,no-recheck:WCL clear-late:WCL wake-one:WCL keep-on-release:WCL,none:WCLL none:WWCL,none:WWCLL)
	$(call model,single_word.py,keep-version:GSS no-log:GSS,none:GSSR:2)
	$(call model,recovery.py,no-applied:GLSL release-first:GUR no-mark:GGR mark-late:GGR keep-version:GSR, \
		none:GGR:2 none:GUR:2 none:GLSL:2,none:GLUR:2 none:GSSR:2 none:GLUS:3)
	$(call model,slots.py,same-generation:4 no-scan:3 no-election:3 keep-generation:3 free-first:3,none:3:2, \
		none:4:2)

# loom is fetched and built once, which takes a minute or more.
LOOM := tests/models/loom/Cargo.toml
test-models-loom:
	@if $(CARGO) fetch --quiet --locked --manifest-path $(LOOM); then \
		$(CARGO) run --quiet --locked --manifest-path $(LOOM) --target-dir $(BUILD)/loom; \
	else echo 'SKIP: loom cannot be fetched: the models under the memory model of C11 were NOT gone through'; fi
