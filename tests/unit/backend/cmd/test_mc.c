/* SPDX-License-Identifier: Apache-2.0 */
/* memcache's commands as a client sees them. What memcached 1.6.18 answers to random streams of them is
 * tests/e2e/mc_differential.py's affair; here are the corners that it cannot draw. */
#include "tests/unit/backend/cmd/cmd_world.h"

#include "backend/cmd/mc.h"

#include <stdio.h>
#include <stdlib.h>

static struct cmd_world w;
static struct mc_keys keys;

static int open_world(void **state)
{
    (void)state;
    world_open(&w);
    mc_keys_init(&keys);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    mc_keys_deinit(&keys);
    world_close(&w);
    return 0;
}

/* All the requests of `text`; the reply is in w.reply. */
static void send_text(const char *text)
{
    struct bytes data = bytes_of_string(text);
    struct mc_parser parser = {0};
    struct proto_limits limits;

    mc_limits(w.engine, &limits);
    while (data.len > 0) {
        struct mc_request request;

        assert_int_equal(mc_parse(&parser, &keys, &limits, data, &request), PARSE_OK);
        assert_int_equal(mc_text_execute(&w.session, &request), CMD_DONE);
        data = bytes_skip(data, request.len);
    }
    world_take_reply(&w);
}

static void ask_(const char *text, const char *reply, const char *file, int line)
{
    send_text(text);
    if (strcmp(w.reply, reply) != 0)
        print_message("# %s\n", text);
    _assert_string_equal(w.reply, reply, file, line);
}
#define ask(text, reply) ask_(text, reply, __FILE__, __LINE__)

static void wait_s(uint64_t seconds)
{
    sim_run_for(w.sim, seconds * 1000000);
}

static void test_both_protocols_share_a_keyspace(void **state)
{
    (void)state;
    ask("set k 5 0 5\r\nhello\r\n", "STORED\r\n");
    world_ask(&w, "GET k", "$5\r\nhello\r\n");
    world_ask(&w, "APPEND k !", ":6\r\n");
    ask("get k\r\n", "VALUE k 5 6\r\nhello!\r\nEND\r\n");
    world_ask(&w, "SET k x", "+OK\r\n");
    ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    ask("set n 7 0 1\r\n9\r\n", "STORED\r\n");
    world_ask(&w, "INCR n", ":10\r\n");
    ask("get n\r\n", "VALUE n 7 2\r\n10\r\nEND\r\n");
    world_ask(&w, "EXPIRE n 100", ":1\r\n");
    ask("mg n t\r\n", "HD t100\r\n");
}

/* memcached knows strings alone: another type is not there for who reads, there for add, and set takes its place. */
static void test_other_types_are_misses(void **state)
{
    (void)state;
    world_ask(&w, "RPUSH l a", ":1\r\n");
    ask("get l\r\n", "END\r\n");
    ask("mg l v\r\n", "EN\r\n");
    ask("mg l v N30\r\n", "EN\r\n");
    ask("touch l 5\r\n", "NOT_FOUND\r\n");
    ask("incr l 5\r\n", "NOT_FOUND\r\n");
    ask("ma l N0\r\n", "NS\r\n");
    ask("append l 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    ask("replace l 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    ask("cas l 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n");
    ask("add l 0 0 1\r\nx\r\n", "NOT_STORED\r\n");
    ask("md l I\r\n", "NF\r\n");
    world_ask(&w, "LLEN l", ":1\r\n");
    ask("set l 0 0 1\r\nx\r\n", "STORED\r\n");
    world_ask(&w, "GET l", "$1\r\nx\r\n");
    world_ask(&w, "SADD s a", ":1\r\n");
    ask("delete s\r\n", "DELETED\r\n");
    world_ask(&w, "EXISTS s", ":0\r\n");
}

static void test_times_to_live(void **state)
{
    (void)state;
    ask("set k 0 2 1\r\nx\r\n", "STORED\r\n");
    wait_s(1);
    ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    wait_s(2);
    ask("get k\r\n", "END\r\n");
    ask("add k 0 0 1\r\ny\r\n", "STORED\r\n");
    /* A negative one: it was stored, and is gone. */
    ask("set k 0 -1 1\r\nz\r\n", "STORED\r\n");
    ask("get k\r\n", "END\r\n");
    /* More than 30 days: a time of the epoch, here long ago. */
    ask("set k 0 2592001 1\r\nz\r\n", "STORED\r\n");
    ask("get k\r\n", "END\r\n");
    ask("set k 0 2592000 1\r\nz\r\n", "STORED\r\n");
    ask("mg k t\r\n", "HD t2592000\r\n");
    ask("gat -1 k\r\n", "VALUE k 0 1\r\nz\r\nEND\r\n");
    ask("get k\r\n", "END\r\n");
    ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    ask("touch k 5\r\n", "TOUCHED\r\n");
    ask("incr k 1\r\n", "2\r\n");
    ask("mg k t\r\n", "HD t5\r\n");
    wait_s(6);
    ask("incr k 1\r\n", "NOT_FOUND\r\n");
}

static void test_numbers(void **state)
{
    static const struct {
        const char *value, *command, *reply;
    } rows[] = {
        {"5", "incr k 1", "6"},
        {"10", "decr k 1", "9"},
        {"10", "decr k 11", "0"},
        {"18446744073709551615", "incr k 1", "0"},
        {"18446744073709551615", "incr k 18446744073709551615", "18446744073709551614"},
        {" 7", "incr k 1", "8"},
        {"7 x", "incr k 1", "8"},
        {"+7", "incr k 1", "8"},
        {"-0", "incr k 1", "1"},
        {"-5", "incr k 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
        {"7x", "incr k 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
        {"", "incr k 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
        {"18446744073709551616", "incr k 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        char text[128], reply[128];

        (void)snprintf(text, sizeof(text), "set k 0 0 %zu\r\n%s\r\n", strlen(rows[i].value), rows[i].value);
        ask(text, "STORED\r\n");
        (void)snprintf(text, sizeof(text), "%s\r\n", rows[i].command);
        (void)snprintf(reply, sizeof(reply), "%s\r\n", rows[i].reply);
        ask(text, reply);
    }
    /* A shorter number keeps the item's length. */
    ask("set k 0 0 2\r\n10\r\ndecr k 1\r\nget k\r\n", "STORED\r\n9\r\nVALUE k 0 2\r\n9 \r\nEND\r\n");
    ask("incr k 95\r\nget k\r\n", "104\r\nVALUE k 0 3\r\n104\r\nEND\r\n");
}

/* "... CAS\r\nx\r\nEND\r\n" */
static uint64_t cas_of(const char *key)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "mg %s c\r\n", key);
    send_text(text);
    assert_int_equal(strncmp(w.reply, "HD c", 4), 0);
    return strtoull(w.reply + 4, NULL, 10);
}

static void test_cas_changes_with_every_change(void **state)
{
    static const char *const changes[] = {"append k 0 0 1\r\n1\r\n", "incr k 1\r\n", "touch k 100\r\n",
                                          "set k 0 0 1\r\n1\r\n", "md k I q\r\n"};
    char text[96];
    uint64_t cas;

    (void)state;
    ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    for (size_t i = 0; i < ARRAY_COUNT(changes); i++) {
        cas = cas_of("k");
        send_text(changes[i]);
        assert_true(cas_of("k") > cas);
    }
    (void)snprintf(text, sizeof(text), "cas k 0 0 1 %llu\r\nx\r\n", (unsigned long long)cas);
    ask(text, "EXISTS\r\n");
    (void)snprintf(text, sizeof(text), "cas k 0 0 1 %llu\r\nx\r\n", (unsigned long long)cas_of("k"));
    ask(text, "STORED\r\n");
    ask("cas k 0 0 1 0\r\nx\r\n", "EXISTS\r\n");
    ask("cas none 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n");
}

/* The life of an item that is invalidated: one client wins, the others see it stale, an old value may come in
 * meanwhile, a new one ends it. */
static void test_stale_items(void **state)
{
    char text[96];
    uint64_t old;

    (void)state;
    ask("ms k 1\r\na\r\n", "HD\r\n");
    old = cas_of("k");
    ask("md k I T100\r\n", "HD\r\n");
    ask("mg k v t\r\n", "VA 1 t100 X W\r\na\r\n");
    ask("mg k v\r\n", "VA 1 Z X\r\na\r\n");
    world_ask(&w, "EXPIRE k 50", ":1\r\n"); /* keeps both marks */
    ask("mg k v\r\n", "VA 1 Z X\r\na\r\n");
    (void)snprintf(text, sizeof(text), "ms k 1 C%llu I\r\nb\r\n", (unsigned long long)old);
    ask(text, "HD\r\n");
    ask("mg k v t\r\n", "VA 1 t50 Z X\r\nb\r\n");
    (void)snprintf(text, sizeof(text), "ms k 1 C%llu\r\nc\r\n", (unsigned long long)cas_of("k"));
    ask(text, "HD\r\n");
    ask("mg k v\r\n", "VA 1\r\nc\r\n");
}

static void test_vivify_and_recache(void **state)
{
    (void)state;
    ask("mg k v N30 t s\r\n", "VA 0 t30 s0 W\r\n\r\n");
    ask("mg k v N30 t\r\n", "VA 0 t30 Z\r\n\r\n");
    ask("ms k 1 T10\r\nx\r\n", "HD\r\n");
    ask("mg k R30\r\n", "HD W\r\n");
    ask("mg k R30\r\n", "HD Z\r\n");
    ask("ma c N0 J5 v\r\n", "VA 1\r\n5\r\n");
    ask("ma c v D2\r\n", "VA 1\r\n7\r\n");
    ask("ma c v MD D100\r\n", "VA 1\r\n0\r\n");
}

static void test_access_is_told(void **state)
{
    (void)state;
    ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    ask("mg k h l u\r\n", "HD h0 l0\r\n");
    wait_s(5);
    ask("mg k h l\r\n", "HD h0 l5\r\n");
    ask("mg k h l\r\n", "HD h1 l5\r\n");
    ask("mg k h l\r\n", "HD h1 l0\r\n");
    send_text("me k\r\n");
    assert_int_equal(strncmp(w.reply, "ME k exp=-1 la=0 cas=", 21), 0);
    assert_non_null(strstr(w.reply, " fetch=yes "));
}

static void test_base64_keys(void **state)
{
    (void)state;
    ask("ms AAEC 1 b k\r\nx\r\n", "HD kAAEC b\r\n");
    ask("mg AAEC b k v\r\n", "VA 1 kAAEC b\r\nx\r\n");
    world_ask(&w, "STRLEN a", ":0\r\n");
    world_put(&w, "STRLEN", bytes_of("\0\1\2", 3), ":1\r\n");
    ask("md AAEC b k\r\n", "HD kAAEC b\r\n");
}

static void test_flags_of_later_versions_are_refused(void **state)
{
    (void)state;
    ask("mg k x\r\n", "CLIENT_ERROR invalid flag\r\n");
    ask("ms k 1 E5\r\nx\r\n", "CLIENT_ERROR invalid flag\r\n");
    ask("md k x\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n");
    ask("ms k 1 Ms\r\nx\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n");
    ask("ma k Mi\r\n", "CLIENT_ERROR invalid mode for ma M token\r\n");
}

static void test_flush_all(void **state)
{
    (void)state;
    ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    ask("flush_all 10\r\n", "OK\r\n");
    ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    wait_s(9);
    ask("set later 0 0 1\r\nx\r\n", "STORED\r\n");
    wait_s(2);
    ask("get k later\r\n", "END\r\n");
    /* Another flush takes the place of the one to come. */
    ask("set k 0 0 1\r\nx\r\nflush_all 10\r\nflush_all\r\nset k 0 0 1\r\ny\r\n", "STORED\r\nOK\r\nOK\r\nSTORED\r\n");
    wait_s(20);
    ask("get k\r\n", "VALUE k 0 1\r\ny\r\nEND\r\n");
    /* The host's clock jumps, before and meanwhile: it comes neither at once nor hours later. */
    for (unsigned is_meanwhile = 0; is_meanwhile < 2; is_meanwhile++) {
        sim_node_wall_jump(w.node, INT64_C(3600000000));
        ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        if (!is_meanwhile)
            sim_node_wall_jump(w.node, INT64_C(-3600000000));
        ask("flush_all 10\r\n", "OK\r\n");
        if (is_meanwhile)
            sim_node_wall_jump(w.node, INT64_C(-3600000000));
        wait_s(9);
        ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
        wait_s(3);
        ask("get k\r\n", "END\r\n");
    }
}

/* A value that is refused must not leave the old one where it was set: it is no longer right. What add, replace, append,
 * prepend and cas may not have done, they have not done. */
static void test_too_large_values(void **state)
{
    static const struct {
        const char *head; /* up to the length */
        bool is_set;
    } rows[] = {
        {"set k 0 0 %u", true},     {"set k 0 0 %u noreply", true}, {"ms k %u", true},         {"ms k %u ME", true},
        {"add k 0 0 %u", false},    {"replace k 0 0 %u", false},    {"append k 0 0 %u", false}, {"prepend k 0 0 %u", false},
        {"cas k 0 0 %u 1", false},
    };
    char text[4000];
    int len;

    (void)state;
    world_ask(&w, "CONFIG SET memcache-item-size-max 2000", "+OK\r\n");
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        len = snprintf(text, sizeof(text), rows[i].head, 3000u);
        (void)snprintf(text + len, sizeof(text) - (size_t)len, "\r\n%3000s\r\n", "");
        ask(text, strstr(rows[i].head, "noreply") != NULL ? "" : "SERVER_ERROR object too large for cache\r\n");
        ask("get k\r\n", rows[i].is_set ? "END\r\n" : "VALUE k 0 1\r\nx\r\nEND\r\n");
    }
    assert_int_equal(w.engine->counters.mc.store_too_large, ARRAY_COUNT(rows));
    (void)snprintf(text, sizeof(text), "set k 0 0 1500\r\n%1500s\r\n", "");
    ask(text, "STORED\r\n");
    (void)snprintf(text, sizeof(text), "append k 0 0 1500\r\n%1500s\r\n", "");
    ask(text, "NOT_STORED\r\n");
}

static void test_nothing_without_the_password(void **state)
{
    (void)state;
    world_ask(&w, "CONFIG SET requirepass secret", "+OK\r\n");
    w.session.is_authenticated = false;
    ask("get k\r\n", "CLIENT_ERROR unauthenticated\r\n");
    ask("set k 0 0 1\r\nx\r\n", "CLIENT_ERROR unauthenticated\r\n");
    world_ask(&w, "GET k", "-NOAUTH Authentication required.\r\n");
    w.session.is_authenticated = true;
    ask("get k\r\n", "END\r\n");
}

static void test_local_commands(void **state)
{
    (void)state;
    ask("version\r\n", "VERSION 1.6.18\r\n");
    ask("verbosity 1\r\n", "OK\r\n");
    ask("mn\r\n", "MN\r\n");
    ask("stats reset\r\n", "RESET\r\n");
    ask("stats sizes\r\n", "STAT sizes_status disabled\r\nEND\r\n");
    ask("stats nothing\r\n", "ERROR\r\n");
    ask("stats cachedump 1 1\r\n", "CLIENT_ERROR stats cachedump not allowed\r\n");
    ask("stats items\r\n", "END\r\n");
    ask("shutdown\r\n", "ERROR: shutdown not enabled\r\n");
    ask("stats detail on\r\nset a:1 0 0 1\r\nx\r\nget a:1\r\nget a:2\r\ndelete a:1\r\nstats detail dump\r\n",
        "OK\r\nSTORED\r\nVALUE a:1 0 1\r\nx\r\nEND\r\nEND\r\nDELETED\r\nPREFIX a get 2 hit 1 set 1 del 1\r\nEND\r\n");
    send_text("set k 0 0 1\r\nx\r\nget k\r\nget none\r\nstats\r\n");
    assert_non_null(strstr(w.reply, "STAT cmd_get 4\r\n"));
    assert_non_null(strstr(w.reply, "STAT get_hits 2\r\n"));
    assert_non_null(strstr(w.reply, "STAT curr_items 1\r\n"));
    send_text("stats settings\r\nstats slabs\r\nstats conns\r\n");
    assert_non_null(strstr(w.reply, "STAT item_size_max 1048576\r\n"));
    assert_non_null(strstr(w.reply, "STAT 1:get_hits 2\r\n"));
    assert_non_null(strstr(w.reply, ":state conn_parse_cmd\r\n"));
    ask("quit\r\n", "");
    assert_true(w.session.close_after_reply);
}

/* ---- binary ---------------------------------------------------------------------------------- */

static struct mc_bin_header send_binary(uint8_t opcode, const char *key, struct bytes extras, const char *value,
                                        uint64_t cas)
{
    struct mc_bin_header header = {.magic = MC_BIN_REQUEST, .opcode = opcode, .key_len = (uint16_t)strlen(key),
                                   .extras_len = (uint8_t)extras.len, .opaque = 77, .cas = cas,
                                   .body_len = (uint32_t)(extras.len + strlen(key) + strlen(value))};
    char data[512];
    size_t len = MC_BIN_HEADER;
    struct mc_bin_parser parser = {0};
    struct mc_bin_request request;
    struct proto_limits limits;

    mc_bin_encode(&header, data);
    memcpy(data + len, extras.data, extras.len);
    len += extras.len;
    memcpy(data + len, key, strlen(key));
    len += strlen(key);
    memcpy(data + len, value, strlen(value));
    len += strlen(value);
    mc_limits(w.engine, &limits);
    assert_int_equal(mc_bin_parse(&parser, &limits, bytes_of(data, len), &request), PARSE_OK);
    assert_int_equal(mc_binary_execute(&w.session, &request), CMD_DONE);
    world_take_reply(&w);
    memset(&header, 0, sizeof(header));
    if (w.reply_len >= MC_BIN_HEADER)
        mc_bin_decode(w.reply, &header);
    return header;
}
#define NO_EXTRAS ((struct bytes){.data = "", .len = 0})

static void test_binary(void **state)
{
    struct bytes extras = bytes_of("\0\0\0\5\0\0\0\0", 8);
    struct mc_bin_header reply = send_binary(0x01, "k", extras, "12", 0);
    uint64_t cas = reply.cas;

    (void)state;
    assert_int_equal(reply.status, MC_BIN_OK);
    assert_int_equal(reply.opaque, 77);
    assert_true(cas != 0);
    reply = send_binary(0x0c, "k", NO_EXTRAS, "", 0);
    assert_int_equal(reply.cas, cas);
    assert_int_equal(w.reply_len, MC_BIN_HEADER + 4 + 1 + 2);
    assert_memory_equal(w.reply + MC_BIN_HEADER, "\0\0\0\5k12", 7);
    /* Quiet: nothing where all is as expected. */
    send_binary(0x11, "q", extras, "1", 0);
    assert_int_equal(w.reply_len, 0);
    send_binary(0x09, "none", NO_EXTRAS, "", 0);
    assert_int_equal(w.reply_len, 0);
    assert_int_equal(send_binary(0x14, "none", NO_EXTRAS, "", 0).status, MC_BIN_NOT_FOUND);
    assert_int_equal(send_binary(0x02, "k", extras, "x", 0).status, MC_BIN_EXISTS);
    assert_int_equal(send_binary(0x03, "none", extras, "x", 0).status, MC_BIN_NOT_FOUND);
    assert_int_equal(send_binary(0x0e, "none", NO_EXTRAS, "x", 0).status, MC_BIN_NOT_STORED);
    assert_int_equal(send_binary(0x01, "k", extras, "x", cas + 1000).status, MC_BIN_EXISTS);
    assert_int_equal(send_binary(0x04, "k", NO_EXTRAS, "", cas + 1000).status, MC_BIN_EXISTS);
    reply = send_binary(0x05, "k", bytes_of("\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0", 20), "", 0);
    assert_int_equal(reply.status, MC_BIN_OK);
    assert_memory_equal(w.reply + MC_BIN_HEADER, "\0\0\0\0\0\0\0\17", 8);
    assert_int_equal(send_binary(0x20, "", NO_EXTRAS, "", 0).status, MC_BIN_UNKNOWN_COMMAND);
    assert_int_equal(send_binary(0x0b, "", NO_EXTRAS, "", 0).body_len, 6);
    assert_int_equal(send_binary(0x10, "nothing", NO_EXTRAS, "", 0).status, MC_BIN_NOT_FOUND);
    reply = send_binary(0x10, "sizes", NO_EXTRAS, "", 0);
    assert_int_equal(reply.key_len, strlen("sizes_status"));
    assert_int_equal(send_binary(0x08, "", NO_EXTRAS, "", 0).status, MC_BIN_OK);
    assert_int_equal(send_binary(0x00, "k", NO_EXTRAS, "", 0).status, MC_BIN_NOT_FOUND);
    send_binary(0x17, "", NO_EXTRAS, "", 0);
    assert_int_equal(w.reply_len, 0);
    assert_true(w.session.close_after_reply);
}

/* A frame that nobody would send: neither its key nor, maybe, its verb is known. */
static void test_binary_frames_of_gigabytes(void **state)
{
    static const uint8_t opcodes[] = {0x01, 0x0e, 0x7f};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(opcodes); i++) {
        struct mc_bin_header header = {.magic = MC_BIN_REQUEST, .opcode = opcodes[i], .key_len = 1,
                                       .body_len = 0x80000000u};
        struct mc_bin_parser parser = {0};
        struct mc_bin_request request;
        struct proto_limits limits;
        char data[MC_BIN_HEADER];

        mc_bin_encode(&header, data);
        mc_limits(w.engine, &limits);
        assert_int_equal(mc_bin_parse(&parser, &limits, bytes_of(data, sizeof(data)), &request), PARSE_BAD);
        assert_int_equal(mc_binary_execute(&w.session, &request), CMD_DONE);
        world_take_reply(&w);
        mc_bin_decode(w.reply, &header);
        assert_int_equal(header.status, MC_BIN_TOO_LARGE);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_both_protocols_share_a_keyspace),
        TEST(test_other_types_are_misses),
        TEST(test_times_to_live),
        TEST(test_numbers),
        TEST(test_cas_changes_with_every_change),
        TEST(test_stale_items),
        TEST(test_vivify_and_recache),
        TEST(test_access_is_told),
        TEST(test_base64_keys),
        TEST(test_flags_of_later_versions_are_refused),
        TEST(test_flush_all),
        TEST(test_too_large_values),
        TEST(test_nothing_without_the_password),
        TEST(test_local_commands),
        TEST(test_binary),
        TEST(test_binary_frames_of_gigabytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
