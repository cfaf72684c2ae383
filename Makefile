# sallyport: `make help` lists the targets. One non-recursive Makefile; objects stand under build/VARIANT/.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION  := 0.1.0
CC       ?= gcc
PREFIX   ?= /usr/local
SANITIZE ?=
COVERAGE ?=

# The variant names the folder: release, the sanitizers' own, fuzz.
empty   :=
space   := $(empty) $(empty)
comma   := ,
VARIANT := $(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),release)
OUT     := build/$(VARIANT)

PKGS    := libevent_core libevent_extra openssl jansson libjwt libpcre2-8 libcares libidn2 libpsl libseccomp libnghttp2
# llhttp comes as C sources in Debian's node-llhttp.
LLHTTP_SRC := $(firstword $(wildcard /usr/share/llhttp /usr/local/share/llhttp))
LLHTTP_INC := $(firstword $(wildcard /usr/share/include/llhttp /usr/local/include/llhttp))

WARN    := -Wall -Wextra -Wshadow -Wconversion -Wswitch-enum -Wvla -Wstrict-prototypes -Wmissing-prototypes \
           -Wpointer-arith -Wwrite-strings -Wformat=2
WERROR  ?= $(if $(CI),-Werror,)
SECTION := -ffunction-sections -fdata-sections
HARDEN  := -fPIE -fstack-protector-strong -fstack-clash-protection -fno-strict-overflow -fno-delete-null-pointer-checks
ifneq ($(filter x86_64,$(shell uname -m)),)
HARDEN  += -fcf-protection=full
endif
ifeq ($(SANITIZE),)
OPT     ?= -O2 -g
HARDEN  += -D_FORTIFY_SOURCE=2
else
OPT     ?= -O1 -g -fno-omit-frame-pointer
HARDEN  += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all
endif
CPPFLAGS += -Iinclude -I$(LLHTTP_INC) -D_GNU_SOURCE -DSALLYPORT_VERSION='"$(VERSION)"' -DSALLYPORT_PREFIX='"$(PREFIX)"'
CFLAGS  ?=
ALL_CFLAGS = -std=gnu11 $(OPT) $(WARN) $(WERROR) $(HARDEN) $(SECTION) $(CPPFLAGS) $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed -Wl,--gc-sections $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
LIBS    = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread

HELPERS := tool worker recorder keeper run
LAYERS  := base http auth policy tls record net proxy process
LIB_SRC := $(sort $(foreach l,$(LAYERS),$(wildcard src/$(l)/*.c)))
CMD_SRC := $(sort $(wildcard src/cmd/*.c))
# `sallyport` itself is the supervisor, in memory for as long as it serves: it links what it needs and not OpenSSL, and becomes
# sallyport-tool for every other command. What of the library it does not call is left out, so that this holds.
SELF    := main serve options helper devkey
SELF_OBJ = $(SELF:%=$(OUT)/cmd/%.o)
TOOL_OBJ = $(filter-out $(patsubst %,$(OUT)/cmd/%.o,main serve devkey),$(CMD_OBJ))
# (A sanitizer's tables name what is not called as well.)
SELF_LIBS = $(if $(SANITIZE),$(LIBS),-levent_core -ljansson -lidn2)
RECORDER_LIBS = $(if $(SANITIZE),$(LIBS),-levent_core -ljansson -lidn2 -lseccomp -lcrypto)
LIB_OBJ := $(LIB_SRC:src/%.c=$(OUT)/%.o) $(OUT)/llhttp/api.o $(OUT)/llhttp/http.o $(OUT)/llhttp/llhttp.o
CMD_OBJ := $(CMD_SRC:src/%.c=$(OUT)/%.o)
# The launcher links base, libseccomp and jansson: no HTTP, TLS, JWT or event code. (The fence loads libnftables
# when it is asked for.)
RUN_SRC := $(sort $(wildcard src/sandbox/*.c))
RUN_OBJ := $(RUN_SRC:src/%.c=$(OUT)/%.o) $(patsubst src/%.c,$(OUT)/%.o,$(filter-out src/base/digest.c,$(wildcard src/base/*.c)))
RUN_LIBS = -ljansson -lseccomp
# Scenario tests link everything but the network layer, whose symbols tests/fakes provides.
FAKE_SRC := $(sort $(wildcard tests/fakes/*.c))
FAKE_OBJ := $(FAKE_SRC:tests/%.c=$(OUT)/tests/%.o)
NONET_OBJ := $(filter-out $(OUT)/net/%.o,$(LIB_OBJ)) $(OUT)/net/dns_query.o
UNIT_SRC := $(sort $(wildcard tests/unit/*_test.c))
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(OUT)/tests/unit/%)
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*_fuzz.c))
FUZZ     := $(patsubst tests/fuzz/%_fuzz.c,%,$(FUZZ_SRC))

.PHONY: all deps demo test check check-layers lint format fuzz bench install clean help unit scenarios system test-bins docs

all: build/sallyport build/sallyport-run ## build the release binaries

$(OUT)/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
# Somebody else's code: their warnings are not ours.
$(OUT)/llhttp/%.o: $(LLHTTP_SRC)/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 $(OPT) -w $(HARDEN) -I$(LLHTTP_INC) -c -o $@ $<
$(OUT)/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -c -o $@ $<

$(OUT)/libsallyport.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^
$(OUT)/sallyport: $(SELF_OBJ) $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $(SELF_OBJ) $(OUT)/libsallyport.a $(SELF_LIBS)
# `sallyport version` asks all libraries, so all are linked.
$(OUT)/sallyport-tool: $(TOOL_OBJ) $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $(TOOL_OBJ) $(OUT)/libsallyport.a -Wl,--no-as-needed $(LIBS)
$(OUT)/sallyport-worker: $(OUT)/worker/main.o $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(OUT)/libsallyport.a $(LIBS)
$(OUT)/sallyport-recorder: $(OUT)/recorder/main.o $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(OUT)/libsallyport.a $(RECORDER_LIBS)
# The others are found beside it, whichever variant that is.
BESIDE  := tool worker recorder keeper
$(OUT)/sallyport: | $(BESIDE:%=$(OUT)/sallyport-%)
build/sallyport: | $(BESIDE:%=build/sallyport-%)
build/sallyport%: $(OUT)/sallyport%
	cp -f $< $@.tmp && mv -f $@.tmp $@
build/sallyport: $(OUT)/sallyport
	cp -f $< $@.tmp && mv -f $@.tmp $@
$(OUT)/sallyport-run: $(RUN_OBJ)
	$(CC) $(ALL_LDFLAGS) -o $@ $(RUN_OBJ) $(RUN_LIBS)
# The launcher's modules are tested by linking them all but its main.
$(OUT)/tests/unit/sandbox_%: $(OUT)/tests/unit/sandbox_%.o $(filter-out $(OUT)/sandbox/main.o,$(RUN_OBJ)) $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(OUT)/sallyport-keeper: $(OUT)/keeper/main.o $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(OUT)/libsallyport.a $(LIBS)
$(OUT)/tests/unit/%: $(OUT)/tests/unit/%.o $(OUT)/libsallyport.a
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(OUT)/libsallyport.a $(LIBS)
$(OUT)/tests/scenario: $(FAKE_OBJ) $(NONET_OBJ)
	$(CC) $(ALL_LDFLAGS) -o $@ $(FAKE_OBJ) $(NONET_OBJ) $(LIBS)

clean: ## remove build/
	rm -rf build

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

check-layers: ## hold the includes to src/LAYERS
	tests/check-layers

-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(RUN_OBJ:.o=.d) $(OUT)/keeper/main.d $(OUT)/recorder/main.d $(OUT)/worker/main.d $(FAKE_OBJ:.o=.d) $(wildcard $(OUT)/tests/unit/*.d)

# ---- set-up, tests and checks. Each target installs what it needs first (tools/deps: nothing to do costs milliseconds).
TEST_SANITIZE ?= address,undefined
TEST_OUT := build/$(subst $(comma),-,$(TEST_SANITIZE))
SUBMAKE  = $(MAKE) --no-print-directory
SYSTEM   := $(sort $(wildcard tests/system/test_*.py))
SCENARIO := $(sort $(wildcard tests/scenarios/*.scenario))
# Two cores are assumed; a test program is never the only thing that runs.
JOBS     ?= 2
PYTHON   := $(firstword $(wildcard /usr/bin/python3) python3)
export ASAN_OPTIONS  ?= abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS ?= print_stacktrace=1:halt_on_error=1

deps: ## install what is missing to build, from Debian's packages
	@tools/deps build

demo: ## build, then show the main job without internet: six requests, their answers, their records
	@tools/deps demo
	@$(SUBMAKE) -j$(JOBS) build/sallyport build/sallyport-run
	@$(PYTHON) tests/demo/demo build/sallyport

test-bins: $(OUT)/sallyport $(OUT)/sallyport-run $(UNIT_BIN) $(if $(FAKE_SRC),$(OUT)/tests/scenario)

test: ## all tests, under ASan and UBSan
	@tools/deps test
	@$(SUBMAKE) -j$(JOBS) SANITIZE=$(TEST_SANITIZE) test-bins
	@SALLYPORT=$(TEST_OUT)/sallyport tests/run -j $(JOBS) --again $(UNIT_RUN) $(SCENARIO_RUN) $(SYSTEM_RUN)
UNIT_RUN     = $(UNIT_SRC:tests/unit/%.c=$(TEST_OUT)/tests/unit/%)
SCENARIO_RUN = $(if $(and $(FAKE_SRC),$(SCENARIO)),"$(TEST_OUT)/tests/scenario $(SCENARIO)")
SYSTEM_RUN   = $(SYSTEM:%="$(PYTHON) %")

unit: ## the unit tests alone
	@$(SUBMAKE) -j$(JOBS) SANITIZE=$(TEST_SANITIZE) $(UNIT_RUN)
	@tests/run -j $(JOBS) $(UNIT_RUN)
scenarios: ## the scenario tests alone
	@$(SUBMAKE) -j$(JOBS) SANITIZE=$(TEST_SANITIZE) $(TEST_OUT)/tests/scenario
	@tests/run $(SCENARIO_RUN)
system: ## the tests from outside alone: vectors, clients, faults
	@$(SUBMAKE) -j$(JOBS) SANITIZE=$(TEST_SANITIZE) $(TEST_OUT)/sallyport $(TEST_OUT)/sallyport-run
	@SALLYPORT=$(TEST_OUT)/sallyport tests/run -j $(JOBS) $(SYSTEM_RUN)

INSTRUMENTED = build/instrumented
check: ## layers, generated docs, hosts, hardening, instruction budgets, memory of what idles, warnings of gcc and clang
	@tools/deps check
	@$(SUBMAKE) -j$(JOBS) build/sallyport build/sallyport-run build/release/tests/scenario
	@$(SUBMAKE) -j$(JOBS) $(INSTRUMENTED)/sallyport VARIANT=instrumented CFLAGS="$(CFLAGS) -DSALLYPORT_INSTRUMENTED"
	@tests/run -j $(JOBS) tests/check-layers tests/check-tree "tests/check-binary build/sallyport" \
	    $(HELPERS:%="tests/check-binary build/sallyport-%") \
	    "tests/budget build/release/tests/scenario $(INSTRUMENTED)/sallyport" "tests/memory build/sallyport" tests/check-warnings

lint: ## clang-tidy and cppcheck
	@tools/deps lint
	@tests/lint $(LIB_SRC) $(CMD_SRC) $(RUN_SRC)

format: ## clang-format all C files
	clang-format -i $$(git ls-files '*.[ch]')

fuzz: ## F=NAME T=SECONDS: one fuzz target (all without F), with its corpus
	@tools/deps fuzz
	@tests/fuzz-run "$(if $(F),$(F),$(FUZZ))" "$(or $(T),60)"

install: build/sallyport build/sallyport-run ## PREFIX=/usr/local DESTDIR=
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/sallyport $(DESTDIR)$(PREFIX)/share/sallyport/policies
	install -m 0755 build/sallyport $(DESTDIR)$(PREFIX)/bin/sallyport
	install -d $(DESTDIR)$(PREFIX)/libexec/sallyport
	install -m 0755 $(HELPERS:%=build/sallyport-%) $(DESTDIR)$(PREFIX)/libexec/sallyport/
	install -m 0644 $(wildcard policies/*.json) $(DESTDIR)$(PREFIX)/share/sallyport/policies/

# For clang's fuzzer: the library with coverage, then a target of tests/fuzz. Called by tests/fuzz-run.
$(OUT)/bin/%: $(OUT)/tests/fuzz/%_fuzz.o $(OUT)/libsallyport.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $< $(OUT)/libsallyport.a $(LIBS)

# ---- generated documentation and measurements
docs: ## write the pages that are made from the code: docs/REASONS.md, the table of docs/CONFIGURATION.md
	@tools/reasons > docs/REASONS.md.tmp && mv -f docs/REASONS.md.tmp docs/REASONS.md
	@tools/settings
build/bench/tls%: bench/tls%.c bench/common.h bench/tls.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 $(WARN) -D_GNU_SOURCE -I. -o $@ $< -lssl -lcrypto
build/bench/%: bench/%.c bench/common.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 $(WARN) -D_GNU_SOURCE -I. -o $@ $<
bench: ## measure against squid, tinyproxy and a bare relay on loopback, medians of interleaved rounds (minutes)
	@tools/deps bench
	@$(SUBMAKE) -j$(JOBS) build/sallyport build/bench/load build/bench/origin build/bench/bulk build/bench/relay \
		build/bench/tlsload build/bench/tlsorigin build/bench/tlsrelay build/bench/through
	@PATH="$$PATH:/usr/sbin" bench/run $(BENCH_FLAGS)
	@PATH="$$PATH:/usr/sbin" bench/run-tls $(BENCH_TLS_FLAGS)
	@bench/growth $(BENCH_GROWTH_FLAGS)
