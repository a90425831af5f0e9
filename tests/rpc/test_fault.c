/* SPDX-License-Identifier: Apache-2.0 */
/* Fault specifications: what each text means, the way back, and errors that name the field. */
#include "helpers.h"

#include "rpc/fault.h"

static struct fault_spec parse(const char *text)
{
    struct fault_spec spec = {0};
    struct err err = {0};

    if (fault_parse(text, &spec, &err) != STATUS_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return spec;
}

static void assert_same(const struct fault_spec *a, const struct fault_spec *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->rank, b->rank);
    assert_int_equal(a->has_step, b->has_step);
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->has_layer, b->has_layer);
    assert_int_equal(a->layer, b->layer);
    assert_int_equal(a->has_phase, b->has_phase);
    assert_int_equal(a->phase, b->phase);
    assert_int_equal(a->ms, b->ms);
    assert_int_equal(a->has_epoch, b->has_epoch);
    assert_int_equal(a->epoch, b->epoch);
}

static void test_meaning(void **state)
{
    struct fault_spec now = parse("kill:rank=1");
    struct fault_spec at = parse("hang-in-collective:rank=0,step=20,layer=3,epoch=2");
    struct fault_spec slow = parse("slow:ms=5,phase=decode,rank=4294967295");

    (void)state;
    assert_same(&now, &(struct fault_spec){.kind = FAULT_KILL, .rank = 1});
    assert_same(&at, &(struct fault_spec){.kind = FAULT_HANG,
                                          .has_step = true,
                                          .step = 20,
                                          .has_layer = true,
                                          .layer = 3,
                                          .has_epoch = true,
                                          .epoch = 2});
    assert_same(&slow, &(struct fault_spec){.kind = FAULT_SLOW,
                                            .rank = UINT32_MAX,
                                            .ms = 5,
                                            .has_phase = true,
                                            .phase = STATUS_PHASE_DECODE});
    assert_int_equal(parse("stop:rank=0,step=9223372036854775807").step, INT64_MAX);
    assert_int_equal(parse("oom:rank=0,layer=0").has_layer, true);
}

/* Every kind, with and without each field that it may have. */
static void test_round_trip(void **state)
{
    uint32_t n = 0;

    (void)state;
    for (uint32_t kind = 0; kind < FAULT_KINDS; kind++) {
        for (uint32_t fields = 0; fields < 16; fields++) {
            bool frame = kind == FAULT_DROP || kind == FAULT_CORRUPT || kind == FAULT_DEVICE;
            struct fault_spec spec = {.kind = (enum fault_kind)kind, .rank = fields + 1};
            struct fault_spec back;
            struct buf text = {0};

            spec.has_step = (fields & 1) != 0;
            spec.step = spec.has_step ? UINT64_C(1) << 40 : 0;
            spec.has_layer = (fields & 2) != 0 && !frame;
            spec.layer = spec.has_layer ? 17 : 0;
            spec.has_phase = (fields & 4) != 0;
            spec.phase = spec.has_phase ? STATUS_PHASE_PREFILL : 0;
            spec.has_epoch = (fields & 8) != 0;
            spec.epoch = spec.has_epoch ? 3 : 0;
            spec.ms = kind == FAULT_SLOW ? FAULT_MAX_MS : 0;
            fault_format(&spec, &text);
            back = parse(buf_str(&text));
            assert_same(&spec, &back);
            buf_release(&text);
            n++;
        }
    }
    assert_int_equal(n, FAULT_KINDS * 16);
}

static void test_phases(void **state)
{
    static const char *const names[] = {"hello",  "comm_init", "sanity", "loading", "prefill",
                                        "decode", "idle",      "unload", "shutdown"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char text[64];

        snprintf(text, sizeof(text), "kill:rank=2,phase=%s", names[i]);
        assert_string_equal(status_phase_text(parse(text).phase), names[i]);
    }
}

static void test_table(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < FAULT_KINDS; kind++) {
        assert_string_not_equal(fault_kind_name(kind), "unknown");
        assert_string_not_equal(fault_kind_help(kind), "unknown");
        for (uint32_t other = 0; other < kind; other++) {
            assert_string_not_equal(fault_kind_name(kind), fault_kind_name(other));
        }
    }
    assert_string_equal(fault_kind_name(FAULT_KINDS), "unknown");
    assert_string_equal(fault_kind_help(UINT32_MAX), "unknown");
}

static void test_refused(void **state)
{
    static const struct {
        const char *text;
        const char *why;
    } cases[] = {
        {"", "no kind of fault is called \"\""},
        {"crash:rank=1",
         "no kind of fault is called \"crash\"; there are kill stop hang-in-collective "
         "drop-frame corrupt-frame slow device-error oom"},
        {"kil:rank=1", "no kind of fault is called \"kil\""},
        {"Kill:rank=1", "no kind of fault is called \"Kill\""},
        {"kill", "rank is missing"},
        {"kill:", "a fault has no field \"\""},
        {"kill:rank", "rank needs a value"},
        {"kill:rank,step=1", "rank needs a value"},
        {"kill:rank=", "rank: \"\" is not a whole number"},
        {"kill:rank=,step=1", "rank: \"\" is not a whole number"},
        {"kill:rank=-1", "rank: \"-1\" is not a whole number"},
        {"kill:rank= 1", "rank: \" 1\" is not a whole number"},
        {"kill:rank=1x", "rank: \"1x\" is not a whole number"},
        {"kill:rank=0x1", "rank: \"0x1\" is not a whole number"},
        {"kill:rank=4294967296", "rank: 4294967296 is not between 0 and 4294967295"},
        {"kill:rank=1,", "a fault has no field \"\""},
        {"kill:rank=1,,step=2", "a fault has no field \"\""},
        {"kill:rank=1,rank=2", "rank is given twice"},
        {"kill:step=3", "rank is missing"},
        {"kill:rank=1,step=0", "step: 0 is not between 1 and"},
        {"kill:rank=1,step=99999999999999999999", "step: 99999999999999999999 is not between"},
        {"kill:rank=1,epoch=0", "epoch: 0 is not between 1 and"},
        {"kill:rank=1,phase=start", "phase: \"start\" is none of hello"},
        {"kill:rank=1,phase=lunch", "phase: \"lunch\" is none of hello"},
        {"kill:rank=1,phase=", "phase: \"\" is none of hello"},
        {"kill:rank=1,node=1", "a fault has no field \"node\""},
        {"kill:rank=1,ms=5", "ms says nothing for kill"},
        {"slow:rank=1", "ms is missing"},
        {"slow:rank=1,ms=0", "ms: 0 is not between 1 and 3600000"},
        {"slow:rank=1,ms=3600001", "ms: 3600001 is not between 1 and 3600000"},
        {"drop-frame:rank=1,layer=2", "layer says nothing for drop-frame"},
        {"corrupt-frame:rank=1,layer=2", "layer says nothing for corrupt-frame"},
        {"kill:rank=1,phase=idle,step=2", "phase idle has no steps"},
        {"kill:rank=1,phase=sanity,layer=2", "phase sanity has no layers"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fault_spec spec = {.kind = FAULT_OOM, .rank = 77};
        struct err err = {0};

        assert_int_equal(fault_parse(cases[i].text, &spec, &err), STATUS_INVALID);
        if (strncmp(err.text, cases[i].why, strlen(cases[i].why)) != 0) {
            fail_msg("\"%s\": \"%s\" does not say \"%s\"", cases[i].text, err.text, cases[i].why);
        }
        assert_int_equal(spec.rank, 77);
    }
}

/* A name or value of any length is no trouble. */
static void test_long(void **state)
{
    size_t n = 1 << 20;
    char *text = xalloc(n + 1);
    struct fault_spec spec;
    struct err err = {0};

    (void)state;
    memset(text, 'k', n);
    assert_int_equal(fault_parse(text, &spec, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the text of a fault is too long");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meaning), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_phases),  cmocka_unit_test(test_table),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
