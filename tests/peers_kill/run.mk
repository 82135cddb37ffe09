# The same kills for netshm, TDB and LMDB. Included by the Makefile.

KILLS ?= 300

.PHONY: kill-peers
kill-peers: lib
	@mkdir -p $(BUILD)/peers_kill
	@bench/peers/need.sh $(BUILD)/peers_kill/have.mk
	@$(MAKE) --no-print-directory -f tests/peers_kill/build.mk BUILD=$(BUILD) LIBDIR=$(LIBDIR) CC="$(CC)"
	$(BUILD)/peers_kill/peers_kill $(KILLS)
