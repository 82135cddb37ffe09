# Builds the benchmark beside the peers. The Makefile above calls this one when bench/peers/need.sh has written which
# peers there are. Variables: BUILD, LIBDIR, CXX.

include $(BUILD)/peers/have.mk

HERE := bench/peers
OUT := $(BUILD)/peers
MAP := $(BUILD)/bench-map/release

LIBS_tdb = -ltdb
LIBS_lmdb = -llmdb
LIBS_bdb = -ldb
LIBS_redis = -lhiredis
LIBS_absl = $(shell pkg-config --libs absl_flat_hash_map absl_strings)
LIBS_boost = -lrt

upper = $(shell echo $(1) | tr a-z A-Z)
SYSTEMS := limit control netshm hashbrown $(PEERS)
SOURCES := content latencies script system together works results goals registry main $(SYSTEMS:%=sys_%)
OBJECTS := $(SOURCES:%=$(OUT)/%.o)

FLAGS := -O2 -std=c++17 -Wall -Wextra -Werror -Iinclude $(foreach p,$(PEERS),-DHAVE_$(call upper,$(p))) \
	-DOCAMLNET_PROGRAM='"$(abspath $(OUT))/ocamlnet"'
# Operations on many keys in one call, once the header has them.
MANY := $(if $(shell grep -l netshm_hashtbl_find_many_into include/netshm.h),-DHAVE_MANY)

all: $(OUT)/peers $(if $(filter ocamlnet,$(PEERS)),$(OUT)/ocamlnet)
	@$(if $(MANY),true,echo 'SKIP: the header has no netshm_hashtbl_find_many_into: batches are not measured for netshm')

$(OUT)/%.o: $(HERE)/%.cpp $(wildcard $(HERE)/*.h) include/netshm.h bench/benchmap.h $(BUILD)/peers/have.mk
	@$(CXX) $(FLAGS) $(MANY) -c $< -o $@

$(OUT)/peers: $(OBJECTS)
	@$(CXX) $(OBJECTS) -o $@ -L$(LIBDIR) -lnetshm $(MAP)/libbenchmap.so $(foreach p,$(PEERS),$(LIBS_$(p))) -lpthread \
		-Wl,-rpath,$(abspath $(LIBDIR)) -Wl,-rpath,$(abspath $(MAP))

# ocamlopt leaves its objects beside the source.
$(OUT)/ocamlnet: $(HERE)/ocamlnet.ml
	@cp $< $(OUT)/ocamlnet.ml
	@cd $(OUT) && ocamlfind ocamlopt -package netsys,netshm,unix -linkpkg ocamlnet.ml -o ocamlnet
