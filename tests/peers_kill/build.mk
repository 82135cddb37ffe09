# Builds the program for those peers that are there. Variables: BUILD, LIBDIR, CC.

include $(BUILD)/peers_kill/have.mk

OUT := $(BUILD)/peers_kill
HERE := tests/peers_kill
WITH := $(filter tdb lmdb,$(PEERS))
SOURCES := $(HERE)/main.c $(HERE)/sys_netshm.c $(WITH:%=$(HERE)/sys_%.c)
FLAGS := $(if $(filter tdb,$(WITH)),-DHAVE_TDB) $(if $(filter lmdb,$(WITH)),-DHAVE_LMDB)
LIBS := $(if $(filter tdb,$(WITH)),-ltdb) $(if $(filter lmdb,$(WITH)),-llmdb)

$(OUT)/peers_kill: $(SOURCES) $(HERE)/system.h include/netshm.h $(OUT)/have.mk
	$(CC) -O2 -std=gnu11 -Wall -Wextra -Werror -Iinclude $(FLAGS) $(SOURCES) -o $@ -L$(LIBDIR) -lnetshm $(LIBS) \
		-Wl,-rpath,$(abspath $(LIBDIR))
