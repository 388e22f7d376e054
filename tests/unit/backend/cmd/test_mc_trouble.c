/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache's commands where they cannot be done: no memory, no disk, a log that has failed, a value that cannot be read,
 * a log that is behind. Each in all three dialects: what is answered, once, and what is left.
 */
#include "tests/unit/backend/cmd/cold_world.h"

#include "backend/cmd/mc.h"

#include <stdio.h>

#define NO_MEMORY  "SERVER_ERROR out of memory storing object"
#define NO_DISK    "SERVER_ERROR out of disk space storing object"
#define READ_ONLY  "SERVER_ERROR read-only after a failed write of the log"
#define UNREADABLE "SERVER_ERROR the stored value cannot be read"

#define LONG_VALUE "a-value-that-is-worth-spilling"
#define LONG_SIZE  30

/* What a command needs, for which it may be refused. */
enum { NOTHING = 0, ROOM = 1, LOG = 2, VALUE = 4 };

struct row {
    const char *line;
    unsigned needs;
    const char *reply; /* if nothing is refused. NULL: not looked at */
};

/* `k` and `n` are there, `none` is not. Those that have changed nothing first. */
static const struct row rows[] = {
    {"get k", VALUE, "VALUE k 5 30\r\n" LONG_VALUE "\r\nEND\r\n"},
    {"get none k", VALUE, "VALUE k 5 30\r\n" LONG_VALUE "\r\nEND\r\n"},
    {"gets k", VALUE, NULL},
    {"mg k v", VALUE, "VA 30\r\n" LONG_VALUE "\r\n"},
    {"mg k s f", NOTHING, "HD s30 f5\r\n"},
    {"get none", NOTHING, "END\r\n"},
    {"add k 0 0 1\r\nx", ROOM | LOG, "NOT_STORED\r\n"},
    {"replace none 0 0 1\r\nx", ROOM | LOG, "NOT_STORED\r\n"},
    {"cas k 0 0 1 1\r\nx", ROOM | LOG, "EXISTS\r\n"},
    {"incr none 1", ROOM | LOG, "NOT_FOUND\r\n"},
    {"touch none 0", ROOM | LOG, "NOT_FOUND\r\n"},
    {"delete none", LOG, "NOT_FOUND\r\n"},
    {"md none", LOG, "NF\r\n"},
    {"ma none q", ROOM | LOG, "NF\r\n"},
    {"set k 5 0 30\r\n" LONG_VALUE, ROOM | LOG, "STORED\r\n"},
    {"replace k 5 0 30\r\n" LONG_VALUE, ROOM | LOG, "STORED\r\n"},
    {"append k 0 0 1\r\n!", ROOM | LOG | VALUE, "STORED\r\n"},
    {"prepend k 0 0 1\r\n!", ROOM | LOG | VALUE, "STORED\r\n"},
    {"incr n 1", ROOM | LOG | VALUE, "11\r\n"},
    {"decr n 1", ROOM | LOG | VALUE, "10\r\n"},
    {"touch k 0", ROOM | LOG | VALUE, "TOUCHED\r\n"},
    {"gat 0 k", ROOM | LOG | VALUE, NULL},
    {"gats 0 k n", ROOM | LOG | VALUE, NULL},
    {"mg k T0", ROOM | LOG | VALUE, "HD\r\n"},
    {"mg new N0", ROOM | LOG, "HD W\r\n"},
    {"ms k 1\r\nx", ROOM | LOG, "HD\r\n"},
    {"ms k 30 MA q\r\n" LONG_VALUE, ROOM | LOG, ""},
    {"ma n", ROOM | LOG | VALUE, "HD\r\n"},
    {"ma counter N0", ROOM | LOG, "HD\r\n"},
    {"md n I", ROOM | LOG | VALUE, "HD\r\n"},
    {"md n", LOG, "HD\r\n"},
    {"delete k", LOG, "DELETED\r\n"},
    {"flush_all", LOG, "OK\r\n"},
};

static struct cold_world cw;
static struct mc_keys keys;

static enum cmd_result execute(struct bytes data, bool is_binary)
{
    struct proto_limits limits;
    enum cmd_result result;

    mc_limits(cw.w.engine, &limits);
    if (is_binary) {
        struct mc_bin_parser parser = {0};
        struct mc_bin_request request;

        assert_int_equal(mc_bin_parse(&parser, &limits, data, &request), PARSE_OK);
        result = mc_binary_execute(&cw.w.session, &request);
    } else {
        struct mc_parser parser = {0};
        struct mc_request request;

        assert_int_equal(mc_parse(&parser, &keys, &limits, data, &request), PARSE_OK);
        assert_int_equal(request.len, data.len);
        result = mc_text_execute(&cw.w.session, &request);
    }
    store_turn_end(cw.w.store);
    return result;
}

/* To its end, as often as it has to wait; what it says, it says then. */
static void run(struct bytes data, bool is_binary)
{
    for (unsigned round = 0; round < 100; round++) {
        cw.is_resumed = false;
        if (execute(data, is_binary) == CMD_DONE) {
            world_take_reply(&cw.w);
            return;
        }
        assert_int_equal(cw.w.session.out.len, 0);
        for (unsigned i = 0; i < 200000 && !cw.is_resumed; i++)
            sim_run_for(cw.w.sim, 100);
        assert_true(cw.is_resumed);
    }
    fail_msg("a command waits for ever");
}

static void run_line(const char *line)
{
    char text[512];

    run(bytes_of(text, (size_t)snprintf(text, sizeof(text), "%s\r\n", line)), false);
}

static void ask(const char *line, const char *reply)
{
    run_line(line);
    if (strcmp(cw.w.reply, reply) != 0)
        print_message("# %s\n", line);
    assert_string_equal(cw.w.reply, reply);
}

static void set_up(void)
{
    ask("set k 5 0 30\r\n" LONG_VALUE, "STORED\r\n");
    ask("set n 0 0 20\r\n10                  ", "STORED\r\n");
}

static void begin(void)
{
    cold_init(&cw, 0);
    mc_keys_init(&keys);
    cw.w.session.protocol = SESSION_MC_TEXT;
    set_up();
    sim_run_for(cw.w.sim, 3000000);
}

static void end(void)
{
    mc_keys_deinit(&keys);
    cold_deinit(&cw);
}

/* Values go cold, and the next read fails. */
static void make_unreadable(void)
{
    sim_run_for(cw.w.sim, 3000000);
    store_spill_all(cw.w.store);
    sim_disk_fail(cw.node, SIM_DISK_READ, NULL, -EIO, 1);
}

/* What is refused says why and changes nothing, with noreply it says nothing; what is not works as ever. */
static void check_all(unsigned refused, const char *why)
{
    char answer[128];

    (void)snprintf(answer, sizeof(answer), "%s\r\n", why);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        uint64_t lsn = store_lsn(cw.w.store);

        if ((rows[i].needs & refused) == 0) {
            if (rows[i].reply != NULL && !(refused & LOG))
                ask(rows[i].line, rows[i].reply);
            continue;
        }
        if (refused & VALUE) {
            set_up();
            make_unreadable();
            lsn = store_lsn(cw.w.store);
        }
        ask(rows[i].line, answer);
        assert_int_equal(store_lsn(cw.w.store), lsn);
    }
}

/* ---- binary ---- */

struct frame {
    uint8_t opcode;
    const char *key;
    struct bytes extras, value;
    unsigned needs;
};
#define EXTRAS(text) {.data = (text), .len = sizeof(text) - 1}

static const struct frame frames[] = {
    {0x00, "k", EXTRAS(""), EXTRAS(""), VALUE},
    {0x0d, "k", EXTRAS(""), EXTRAS(""), VALUE},
    {0x01, "k", EXTRAS("\0\0\0\0\0\0\0\0"), EXTRAS("x"), ROOM | LOG},
    {0x11, "k", EXTRAS("\0\0\0\0\0\0\0\0"), EXTRAS("x"), ROOM | LOG},
    {0x0e, "k", EXTRAS(""), EXTRAS("x"), ROOM | LOG | VALUE},
    {0x05, "n", EXTRAS("\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0"), EXTRAS(""), ROOM | LOG | VALUE},
    {0x1c, "k", EXTRAS("\0\0\0\0"), EXTRAS(""), ROOM | LOG | VALUE},
    {0x1e, "k", EXTRAS("\0\0\0\0"), EXTRAS(""), ROOM | LOG | VALUE},
    {0x04, "k", EXTRAS(""), EXTRAS(""), LOG},
    {0x08, "", EXTRAS(""), EXTRAS(""), LOG},
};

/* Also the quiet ones: an error is told. */
static void check_frames(unsigned refused, const char *why)
{
    for (size_t i = 0; i < ARRAY_COUNT(frames); i++) {
        const struct frame *frame = &frames[i];
        size_t key_len = strlen(frame->key), len = MC_BIN_HEADER;
        struct mc_bin_header header = {
            .magic = MC_BIN_REQUEST, .opcode = frame->opcode, .key_len = (uint16_t)key_len,
            .extras_len = (uint8_t)frame->extras.len, .opaque = 77,
            .body_len = (uint32_t)(frame->extras.len + key_len + frame->value.len)};
        uint64_t lsn = store_lsn(cw.w.store);
        char data[256];

        if ((frame->needs & refused) == 0)
            continue;
        if (refused & VALUE)
            make_unreadable();
        mc_bin_encode(&header, data);
        memcpy(data + len, frame->extras.data, frame->extras.len);
        memcpy(data + len + frame->extras.len, frame->key, key_len);
        memcpy(data + len + frame->extras.len + key_len, frame->value.data, frame->value.len);
        run(bytes_of(data, len + header.body_len), true);
        assert_true(cw.w.reply_len >= MC_BIN_HEADER);
        mc_bin_decode(cw.w.reply, &header);
        assert_int_equal(header.status, MC_BIN_NO_MEMORY);
        assert_int_equal(header.opcode, frame->opcode);
        assert_int_equal(header.opaque, 77);
        assert_int_equal(header.cas, 0);
        assert_int_equal(cw.w.reply_len, MC_BIN_HEADER + strlen(why));
        assert_memory_equal(cw.w.reply + MC_BIN_HEADER, why, strlen(why));
        assert_int_equal(store_lsn(cw.w.store), lsn);
    }
}

/* ---- the troubles ---- */

static void test_no_memory(void **state)
{
    (void)state;
    begin();
    store_memory_max_set(cw.w.store, 1);
    check_frames(ROOM, NO_MEMORY);
    ask("set k 0 0 1 noreply\r\nx", "");
    ask("touch k 0 noreply", "");
    ask("incr n 1 noreply", "");
    check_all(ROOM, NO_MEMORY);
    assert_true(cw.w.engine->counters.mc.store_no_memory >= ARRAY_COUNT(frames) / 2);
    store_memory_max_set(cw.w.store, 0);
    set_up();
    ask("incr n 1", "11\r\n");
    end();
}

/* Filled until it says so. What is there can be read, and be taken away; then there is room again. */
static void test_no_disk(void **state)
{
    char *text = must_alloc(40000);
    unsigned count = 0;

    (void)state;
    begin();
    store_disk_max_set(cw.w.store, 4u << 20);
    for (; count < 1000; count++) {
        int len = snprintf(text, 100, "set big-%u 0 0 30000\r\n", count);

        memset(text + len, 'x', 30000);
        memcpy(text + len + 30000, "\r\n", 2);
        run(bytes_of(text, (size_t)len + 30002), false);
        if (strcmp(cw.w.reply, "STORED\r\n") != 0)
            break;
    }
    assert_string_equal(cw.w.reply, NO_DISK "\r\n");
    assert_true(count > 50);
    check_frames(ROOM, NO_DISK);
    check_all(ROOM, NO_DISK);
    sim_run_for(cw.w.sim, 10000000);
    set_up(); /* they were all flushed */
    mem_free(text);
    end();
}

static void test_read_only(void **state)
{
    struct store_stats stats;
    struct proto_limits limits;
    struct mc_parser parser = {0};
    struct mc_request request;
    char text[4000];
    size_t len;

    (void)state;
    begin();
    sim_disk_fail(cw.node, SIM_DISK_WRITE, NULL, -EIO, 1);
    ask("set k 5 0 30\r\n" LONG_VALUE, "STORED\r\n");
    sim_run_for(cw.w.sim, 3000000);
    store_stats_get(cw.w.store, &stats);
    assert_true(stats.is_read_only);
    check_frames(ROOM | LOG, READ_ONLY);
    check_all(ROOM | LOG, READ_ONLY);
    ask("set k 0 0 1 noreply\r\nx", "");
    ask("delete k noreply", "");
    ask("flush_all noreply", "");
    /* Nor does a value that is too large take the old one away. */
    world_ask(&cw.w, "CONFIG SET memcache-item-size-max 2000", "+OK\r\n");
    mc_limits(cw.w.engine, &limits);
    len = (size_t)snprintf(text, sizeof(text), "set k 0 0 3000\r\n%3000s\r\n", "");
    assert_int_equal(mc_parse(&parser, &keys, &limits, bytes_of(text, len), &request), PARSE_OK);
    assert_int_equal(mc_text_execute(&cw.w.session, &request), CMD_DONE);
    world_take_reply(&cw.w);
    assert_string_equal(cw.w.reply, "SERVER_ERROR object too large for cache\r\n");
    ask("get k", "VALUE k 5 30\r\n" LONG_VALUE "\r\nEND\r\n");
    end();
}

/* One value cannot be read: that is told once, after one wait. The next time it is tried again. */
static void test_unreadable(void **state)
{
    (void)state;
    begin();
    check_frames(VALUE, UNREADABLE);
    check_all(VALUE, UNREADABLE);
    set_up();
    make_unreadable();
    ask("append k 0 0 1 noreply\r\nx", "");
    ask("get k", "VALUE k 5 30\r\n" LONG_VALUE "\r\nEND\r\n");
    end();
}

/* The disk stands still until the log ring is full: who writes waits, answers nothing meanwhile, and is answered then. */
static void test_a_log_that_is_behind(void **state)
{
    static const char *const lines[] = {("set k 5 0 30\r\n" LONG_VALUE), "incr n 1", "touch k 0", "mg k T0", "md k I",
                                        "ma n", "ms k 1\r\nx", "delete k", "flush_all"};
    static const char *const replies[] = {"STORED\r\n", "11\r\n", "TOUCHED\r\n", "HD\r\n", "HD\r\n",
                                          "HD\r\n", "HD\r\n", "DELETED\r\n", "OK\r\n"};
    char *text = must_alloc(40000);

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        char line[100];
        uint64_t waits;

        begin();
        sim_disk_stall(cw.node, sim_now_us(cw.w.sim) + 5000000);
        for (unsigned count = 0; count < 1000 && store_may_write(cw.w.store, 1) == 0; count++) {
            int len = snprintf(text, 100, "set big-%u 0 0 30000\r\n", count);

            memset(text + len, 'x', 30000);
            memcpy(text + len + 30000, "\r\n", 2);
            assert_int_equal(execute(bytes_of(text, (size_t)len + 30002), false), CMD_DONE);
            world_take_reply(&cw.w);
        }
        assert_int_equal(store_may_write(cw.w.store, 1), ERR_AGAIN);
        waits = cw.w.engine->counters.parked_log;
        assert_int_equal(execute(bytes_of(line, (size_t)snprintf(line, sizeof(line), "%s\r\n", lines[i])), false),
                         CMD_PARKED);
        assert_int_equal(cw.w.session.out.len, 0);
        assert_int_equal(cw.w.engine->counters.parked_log, waits + 1);
        cw.is_resumed = false;
        for (unsigned round = 0; round < 1000 && !cw.is_resumed; round++)
            sim_run_for(cw.w.sim, 10000);
        assert_true(cw.is_resumed);
        ask(lines[i], replies[i]);
        end();
    }
    mem_free(text);
}

/* flush_all with a delay has a time of the store's clock: that goes slower while the host's is behind, so that the timer is
 * too early, and waits on. */
static void test_a_flush_whose_clock_is_set_back(void **state)
{
    (void)state;
    begin();
    ask("flush_all 10", "OK\r\n");
    sim_node_wall_jump(cw.node, -20000000);
    sim_run_for(cw.w.sim, 10100000);
    ask("get k", "VALUE k 5 30\r\n" LONG_VALUE "\r\nEND\r\n");
    sim_run_for(cw.w.sim, 1000000);
    ask("get k", "END\r\n");
    end();
}

static void die_and_start(void)
{
    sim_node_kill(cw.node);
    session_deinit(&cw.w.session);
    engine_destroy(&cw.w.engine);
    store_destroy(&cw.w.store);
    (void)sim_node_start(cw.node);
    cold_open(&cw, 0);
    cw.w.session.protocol = SESSION_MC_TEXT;
}

/* A start leaves deltas of it on the disk, of which its entry does not tell what they made of its length. */
static void test_a_length_that_a_start_does_not_know(void **state)
{
    static char line[2100];
    const int size = 2000;
    struct store_stats before, now;

    (void)state;
    begin();
    run(bytes_of(line, (size_t)snprintf(line, sizeof(line), "set k 0 0 %d\r\n%0*d\r\n", size, size, 7)), false);
    assert_string_equal(cw.w.reply, "STORED\r\n");
    store_stats_get(cw.w.store, &before);
    ask("append k 0 0 3\r\nabc", "STORED\r\n");
    store_stats_get(cw.w.store, &now);
    assert_true(now.record_bytes_client - before.record_bytes_client < 200); /* it is changed in place */
    sim_run_for(cw.w.sim, 3000000);
    die_and_start();
    ask("mg k s", "HD s2003\r\n");
    ask("mg k s", "HD s2003\r\n");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_disk),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_a_log_that_is_behind),
        cmocka_unit_test(test_a_flush_whose_clock_is_set_back),
        cmocka_unit_test(test_a_length_that_a_start_does_not_know),
    };

    return cmocka_run_group_tests_name("mc_trouble", tests, NULL, NULL);
}
