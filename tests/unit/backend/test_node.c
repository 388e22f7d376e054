/* SPDX-License-Identifier: Apache-2.0 */
/* A shard over the simulated network and disk: when replies leave, and what happens to clients
 * around them. */
#include "tests/unit/backend/node_test.h"

#include "common/io/io_sim_disk.h"

#include <stdio.h>

#define REFUSED                                                                                    \
    "-MISCONF A write or a flush of the log has failed. Commands that may modify the data set "    \
    "are disabled until an "                                                                       \
    "operator acts. Please check the server's log for details about the error.\r\n"

/* fsync always: the reply waits for the flush; so does whoever reads what is not durable yet, and
 * nobody else. */
static void test_replies_wait_for_the_flush(void **state)
{
    struct client writer, reader, stranger;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    join(&w, &reader);
    join(&w, &stranger);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, 5000);
    say(&reader, "GET a\r\n");
    say(&stranger, "PING\r\n");
    sim_run_for(w.sim, 10000);
    hears(&writer, "");
    hears(&reader, "");
    hears(&stranger, "+PONG\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&writer, "+OK\r\n");
    hears(&reader, "$1\r\n1\r\n");
    client_free(&writer);
    client_free(&reader);
    client_free(&stranger);
    world_end(&w);
}

/* The flush that answers wait for fails, or the write before it: nobody hears of a success, nor
 * does whoever reads what it was about; their connections end, as nobody knows what is left of it.
 * What was durable is read, writes are refused. */
static void log_fails(enum sim_disk_op op)
{
    struct client writer, reader, other, late;
    struct world w;

    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    join(&w, &reader);
    join(&w, &other);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&writer, "+OK\r\n");
    sim_disk_fail(w.host, op, NULL, -EIO, 1);
    say(&writer, "SET b 1\r\nGET a\r\n");
    sim_run_for(w.sim, 1000);
    say(&reader, "GET b\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&writer, "");
    hears(&reader, "");
    assert_int_equal(writer.closed, 1);
    assert_int_equal(reader.closed, 1);
    say(&other, "GET a\r\nSET a 2\r\nDEL a\r\nGET a\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&other, "$1\r\n1\r\n" REFUSED REFUSED "$1\r\n1\r\n");
    join(&w, &late);
    say(&late, "GET b\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&late, "");
    assert_int_equal(late.closed, 1);
    assert_int_equal(node_client_count(w.node), 1);
    client_free(&writer);
    client_free(&reader);
    client_free(&other);
    client_free(&late);
    world_end_with(&w, -EROFS);
}

static void test_nobody_waits_for_a_log_that_has_failed(void **state)
{
    (void)state;
    log_fails(SIM_DISK_WRITE);
    log_fails(SIM_DISK_DATASYNC);
}

/* everysec: the log ring is enough. */
static void test_replies_do_not_wait_where_they_need_not(void **state)
{
    struct client writer;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_EVERYSEC);
    join(&w, &writer);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, 5000);
    hears(&writer, "+OK\r\n");
    client_free(&writer);
    world_end(&w);
}

/* One write behind the other, faster than the disk flushes: the first answers come while the stream
 * goes on. */
static void test_a_stream_of_writes_does_not_starve(void **state)
{
    struct client writer;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    for (int i = 0; i < 200; i++) {
        say(&writer, "INCR n\r\n");
        sim_run_for(w.sim, 5000);
        if (i == 100)
            assert_true(writer.in_len >= 50);
    }
    sim_run_for(w.sim, SECOND);
    assert_memory_equal(writer.in, ":1\r\n:2\r\n:3\r\n", 12);
    assert_memory_equal(writer.in + writer.in_len - 6, ":200\r\n", 6);
    client_free(&writer);
    world_end(&w);
}

/* Who waits keeps its bytes in front: what it sent behind is answered after it. */
static void test_what_follows_a_wait_waits(void **state)
{
    struct client waiter, pusher;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    join(&w, &waiter);
    join(&w, &pusher);
    say(&waiter, "BLPOP q 0\r\n");
    sim_run_for(w.sim, 5000);
    say(&waiter, "PING\r\n");
    sim_run_for(w.sim, 5000);
    hears(&waiter, "");
    say(&pusher, "RPUSH q x\r\nLLEN q\r\n");
    sim_run_for(w.sim, 5000);
    hears(&pusher, ":1\r\n:0\r\n");
    hears(&waiter, "*2\r\n$1\r\nq\r\n$1\r\nx\r\n+PONG\r\n");
    client_free(&waiter);
    client_free(&pusher);
    world_end(&w);
}

/* The end of a peer that waits gives its place away; the end of one that has asked is after its
 * answers. */
static void test_ends_of_peers(void **state)
{
    struct client waiter, asker;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &waiter);
    join(&w, &asker);
    say(&waiter, "BLPOP q 0\r\n");
    sim_run_for(w.sim, 5000);
    assert_int_equal(node_engine(w.node)->blocked_count, 1);
    io_stream_shutdown(&waiter.stream);
    say(&asker, "SET a 1\r\nGET a\r\nGE");
    io_stream_shutdown(&asker.stream);
    sim_run_for(w.sim, 5000);
    assert_int_equal(node_engine(w.node)->blocked_count, 0);
    assert_int_equal(node_client_count(w.node), 1);
    sim_run_for(w.sim, SECOND);
    hears(&asker, "+OK\r\n$1\r\n1\r\n");
    assert_int_equal(asker.closed, 1);
    assert_int_equal(node_client_count(w.node), 0);
    client_free(&waiter);
    client_free(&asker);
    world_end(&w);
}

/* What a peer asked for before it waited, or subscribed, it is answered, also when its end comes in the same piece. Then it
 * takes nothing any more: what is pushed while the answer waits for the flush stays. */
static void test_the_end_of_a_peer_that_was_answered_and_waits(void **state)
{
    struct client waiter, listener, pusher;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &waiter);
    join(&w, &listener);
    join(&w, &pusher);
    say(&waiter, "SET a 1\r\nBLPOP q 0\r\nPING\r\n");
    io_stream_shutdown(&waiter.stream);
    say(&listener, "SET b 1\r\nSUBSCRIBE c\r\nPING\r\n");
    io_stream_shutdown(&listener.stream);
    sim_run_for(w.sim, 5000);
    assert_int_equal(node_engine(w.node)->blocked_count, 0);
    hears(&waiter, "");
    say(&pusher, "RPUSH q x\r\nLLEN q\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&waiter, "+OK\r\n");
    hears(&listener, "+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    hears(&pusher, ":1\r\n:1\r\n");
    assert_int_equal(node_client_count(w.node), 1);
    client_free(&waiter);
    client_free(&listener);
    client_free(&pusher);
    world_end(&w);
}

/* It has closed its side, and waits twice: with one answer for the flush, with the next request for
 * the disk. */
static void test_the_end_of_a_peer_that_waits_for_both(void **state)
{
    struct client asker, writer;
    struct world w;
    char text[420];

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    (void)snprintf(text, sizeof(text), "SET c %0300d\r\n", 0);
    say(&writer, text);
    sim_run_for(w.sim, SECOND);
    say(&writer, "DEBUG SPILL\r\n");
    sim_run_for(w.sim, SECOND);
    join(&w, &asker);
    say(&asker, "SET a 1\r\nGET c\r\nPING\r\n");
    io_stream_shutdown(&asker.stream);
    sim_run_for(w.sim, SECOND);
    (void)snprintf(text, sizeof(text), "+OK\r\n$300\r\n%0300d\r\n+PONG\r\n", 0);
    hears(&asker, text);
    assert_int_equal(node_engine(w.node)->counters.parked_cold, 1);
    client_free(&asker);
    client_free(&writer);
    world_end(&w);
}

/* A pipeline of reads that are on the disk waits once: what the first ones wait for, the others do,
 * too. What comes between counts, and a damaged value is the trouble of who asked for it. */
static void test_a_pipeline_of_cold_reads(void **state)
{
    char text[1200] = "", all[8000] = "";
    struct client c;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &c);
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(text, sizeof(text), "SET c%u %0200u\r\n", i, i);
        say(&c, text);
    }
    sim_run_for(w.sim, SECOND);
    say(&c, "DEBUG SPILL\r\n");
    sim_run_for(w.sim, SECOND);
    for (unsigned i = 0; i < 20; i++) {
        size_t len = strlen(all);

        (void)snprintf(all + len, sizeof(all) - len, "*2\r\n$3\r\nGET\r\n$%u\r\nc%u\r\n%s",
                       i < 10 ? 2u : 3u, i,
                       i == 5 ? "*3\r\n$3\r\nSET\r\n$2\r\nc9\r\n$3\r\nnew\r\n" : "");
    }
    c.in_len = 0;
    say(&c, all);
    sim_run_for(w.sim, SECOND);
    all[0] = '\0';
    for (unsigned i = 0; i < 20; i++) {
        size_t len = strlen(all);

        if (i == 9)
            (void)snprintf(all + len, sizeof(all) - len, "$3\r\nnew\r\n");
        else
            (void)snprintf(all + len, sizeof(all) - len, "$200\r\n%0200u\r\n%s", i,
                           i == 5 ? "+OK\r\n" : "");
    }
    hears(&c, all);
    assert_in_range(node_engine(w.node)->counters.parked_cold, 1, 2);
    assert_int_equal(node_engine(w.node)->fetches_ahead, 0);

    /* Gone while it waits. */
    say(&c, "DEBUG SPILL\r\n");
    sim_run_for(w.sim, SECOND);
    say(&c, "*2\r\n$3\r\nGET\r\n$2\r\nc1\r\n*2\r\n$3\r\nGET\r\n$2\r\nc2\r\n*2\r\n$3\r\nGET\r\n$"
            "2\r\nc3\r\n");
    client_free(&c);
    sim_run_for(w.sim, SECOND);
    assert_int_equal(node_engine(w.node)->fetches_ahead, 0);
    world_end(&w);
}

/* Draining: who has nothing under way goes at once, who waits for its reply after it. */
static void test_drain(void **state)
{
    struct client idle, writer;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &idle);
    join(&w, &writer);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, 5000);
    node_drain(w.node);
    sim_run_for(w.sim, 5000);
    assert_int_equal(idle.closed, 1);
    assert_int_equal(writer.closed, 0);
    assert_false(node_is_drained(w.node));
    sim_run_for(w.sim, SECOND);
    hears(&writer, "+OK\r\n");
    assert_int_equal(writer.closed, 1);
    assert_true(node_is_drained(w.node));
    client_free(&idle);
    client_free(&writer);
    world_end(&w);
}

/* ---- who does not read ---------------------------------------------------------------------- */

/* One does not read what it asks for or is sent; some of it its socket has. */
struct slow {
    struct world w;
    struct client slow, other;
};

static void slow_begin(struct slow *s, const char *limits)
{
    char text[200];

    world_start(&s->w, STORE_FSYNC_NO);
    join(&s->w, &s->slow);
    join(&s->w, &s->other);
    (void)snprintf(text, sizeof(text),
                   "CONFIG SET client-output-buffer-limit \"%s\"\r\nSETRANGE half 499999 x\r\n",
                   limits);
    say(&s->other, text);
    sim_run_for(s->w.sim, 5000);
    hears(&s->other, "+OK\r\n:500000\r\n");
    io_stream_pause(&s->slow.stream);
}

static void slow_end(struct slow *s)
{
    say(&s->other, "PING\r\n");
    sim_run_for(s->w.sim, SECOND);
    hears(&s->other, "+PONG\r\n");
    client_free(&s->slow);
    client_free(&s->other);
    world_end(&s->w);
}

/* The node has closed it. What was under way is not looked at. */
static bool slow_is_gone(struct slow *s)
{
    return node_client_count(s->w.node) == 1;
}

static bool slow_is_gone_after(struct slow *s, uint64_t us)
{
    sim_run_for(s->w.sim, us);
    return slow_is_gone(s);
}

static void subscribe(struct slow *s)
{
    say(&s->slow, "SUBSCRIBE c\r\n");
    sim_run_for(s->w.sim, 5000);
}

static void publish(struct slow *s)
{
    static char text[200100];
    int head = snprintf(text, 100, "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$200000\r\n");

    memset(text + head, 'm', 200000);
    memcpy(text + head + 200000, "\r\n", 3);
    s->other.out = text;
    s->other.out_len = (size_t)head + 200002;
    s->other.sent = 0;
    client_send(&s->other);
    sim_run_for(s->w.sim, SECOND / 2);
    assert_int_equal(s->other.sent, s->other.out_len);
    hears(&s->other, ":1\r\n");
}

/* Over the hard limit it is closed at once, below it never. Each class has its own. */
static void test_the_hard_limit_of_output(void **state)
{
    struct slow s;

    (void)state;
    slow_begin(&s, "normal 700000 0 0 pubsub 100 100 1");
    say(&s.slow, "GET half\r\n");
    assert_false(slow_is_gone_after(&s, 100 * SECOND));
    say(&s.slow, "GET half\r\nGET half\r\n");
    assert_true(slow_is_gone_after(&s, SECOND / 2));
    slow_end(&s);

    slow_begin(&s, "normal 100 100 1 pubsub 500000 0 0");
    subscribe(&s);
    publish(&s);
    publish(&s);
    assert_false(slow_is_gone_after(&s, 100 * SECOND));
    for (unsigned i = 0; i < 10 && !slow_is_gone(&s); i++)
        publish(&s);
    assert_true(slow_is_gone(&s));
    slow_end(&s);
}

/* Over the soft limit it is closed when it has been that for longer than the seconds; who has read
 * meanwhile begins anew. That the clock is set back does not make them less. */
static void test_the_soft_limit_of_output(void **state)
{
    struct slow s;

    (void)state;
    slow_begin(&s, "normal 0 200000 5");
    say(&s.slow, "GET half\r\nGET half\r\n");
    assert_false(slow_is_gone_after(&s, 4 * SECOND));
    io_stream_resume(&s.slow.stream);
    sim_run_for(s.w.sim, 3 * SECOND);
    assert_int_equal(s.slow.in_len, 2 * 500011);
    io_stream_pause(&s.slow.stream);
    say(&s.slow, "GET half\r\nGET half\r\n");
    sim_run_for(s.w.sim, 4 * SECOND);
    sim_node_wall_jump(s.w.host, -3600 * (int64_t)SECOND);
    assert_false(slow_is_gone_after(&s, SECOND / 2));
    assert_true(slow_is_gone_after(&s, 3 * SECOND));
    slow_end(&s);

    slow_begin(&s, "pubsub 0 200000 5");
    subscribe(&s);
    for (unsigned i = 0; i < 5; i++)
        publish(&s); /* half a second each */
    assert_false(slow_is_gone_after(&s, 2 * SECOND));
    assert_true(slow_is_gone_after(&s, 5 * SECOND));
    slow_end(&s);
}

/* ---- long pipelines ------------------------------------------------------------------------- */

#define PIPELINE 2000u

struct pipeline {
    const char *begin; /* makes the counter */
    size_t (*ask)(char *out, size_t room);
    size_t (*answer)(char *out, size_t room, unsigned i);
};

static size_t resp_ask(char *out, size_t room)
{
    return (size_t)snprintf(out, room, "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n");
}

static size_t resp_answer(char *out, size_t room, unsigned i)
{
    return (size_t)snprintf(out, room, ":%u\r\n", i);
}

static size_t text_ask(char *out, size_t room)
{
    return (size_t)snprintf(out, room, "incr n 1\r\n");
}

static size_t meta_ask(char *out, size_t room)
{
    return (size_t)snprintf(out, room, "ma n v\r\n");
}

static size_t text_answer(char *out, size_t room, unsigned i)
{
    return (size_t)snprintf(out, room, "%u\r\n", i);
}

static size_t meta_answer(char *out, size_t room, unsigned i)
{
    char number[16];

    return (size_t)snprintf(out, room, "VA %d\r\n%s\r\n", snprintf(number, sizeof(number), "%u", i),
                            number);
}

/* Increment of "n" by 1. */
static size_t binary_ask(char *out, size_t room)
{
    static const char wire[45] = {
        (char)0x80, 5, [3] = 1, [4] = 20, [11] = 21, [31] = 1, [44] = 'n'};

    assert_true(room >= sizeof(wire));
    memcpy(out, wire, sizeof(wire));
    return sizeof(wire);
}

/* All but the CAS, which is the store's to choose. */
static size_t binary_answer(char *out, size_t room, unsigned i)
{
    char wire[32] = {(char)0x81, 5, [11] = 8, [30] = (char)(i >> 8), (char)i};

    assert_true(room >= sizeof(wire));
    memcpy(out, wire, sizeof(wire));
    return sizeof(wire);
}

static void binary_forget_cas(char *replies, size_t len)
{
    for (size_t at = 0; at + 32 <= len; at += 32)
        memset(replies + at + 16, 0, 8);
}

/* One client's requests take many turns: another one's, sent after them, is answered while they are
 * executed, in their order and to the last, also when the peer has closed its side behind them. */
static void pipeline_run(const struct pipeline *p, enum store_fsync fsync, bool is_ended)
{
    const size_t room = PIPELINE * 64;
    char *ask = must_alloc(room), *answer = must_alloc(room);
    size_t ask_len = 0, answer_len = 0;
    struct client asker, other;
    const uint64_t *received;
    uint64_t before;
    struct world w;

    world_start_slow(&w, fsync, 200);
    received = &node_engine(w.node)->counters.bytes_in;
    join(&w, &asker);
    join(&w, &other);
    say(&other, p->begin);
    sim_run_for(w.sim, SECOND);
    other.in_len = 0;
    for (unsigned i = 1; i <= PIPELINE; i++) {
        ask_len += p->ask(ask + ask_len, room - ask_len);
        answer_len += p->answer(answer + answer_len, room - answer_len, i);
    }
    before = *received;
    asker.out = ask;
    asker.out_len = ask_len;
    client_send(&asker);
    assert_int_equal(asker.sent, ask_len);
    if (is_ended)
        io_stream_shutdown(&asker.stream);
    for (unsigned i = 0; i < 1000 && *received == before; i++)
        assert_true(sim_step(w.sim));
    say(&other, "PING\r\n");
    for (unsigned i = 0; i < 1000 && other.in_len == 0; i++)
        assert_true(sim_step(w.sim));
    hears(&other, "+PONG\r\n");
    assert_true(*received - before < ask_len);
    sim_run_for(w.sim, 5 * SECOND);
    assert_int_equal(asker.in_len, answer_len);
    if (p->ask == binary_ask)
        binary_forget_cas(asker.in, asker.in_len);
    assert_memory_equal(asker.in, answer, answer_len);
    assert_int_equal(asker.closed, is_ended);
    client_free(&asker);
    client_free(&other);
    world_end(&w);
    mem_free(ask);
    mem_free(answer);
}

static void test_a_long_pipeline_does_not_starve_others(void **state)
{
    static const struct pipeline pipelines[] = {
        {"SET n 0\r\n", resp_ask, resp_answer},
        {"SET n 0\r\n", text_ask, text_answer},
        {"SET n 0\r\n", meta_ask, meta_answer},
        {"SET n 0\r\n", binary_ask, binary_answer},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(pipelines); i++) {
        pipeline_run(&pipelines[i], STORE_FSYNC_NO, false);
        pipeline_run(&pipelines[i], STORE_FSYNC_NO, true);
        pipeline_run(&pipelines[i], STORE_FSYNC_ALWAYS, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies_wait_for_the_flush),
        cmocka_unit_test(test_nobody_waits_for_a_log_that_has_failed),
        cmocka_unit_test(test_replies_do_not_wait_where_they_need_not),
        cmocka_unit_test(test_a_stream_of_writes_does_not_starve),
        cmocka_unit_test(test_what_follows_a_wait_waits),
        cmocka_unit_test(test_ends_of_peers),
        cmocka_unit_test(test_the_end_of_a_peer_that_was_answered_and_waits),
        cmocka_unit_test(test_the_end_of_a_peer_that_waits_for_both),
        cmocka_unit_test(test_a_pipeline_of_cold_reads),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_the_hard_limit_of_output),
        cmocka_unit_test(test_the_soft_limit_of_output),
        cmocka_unit_test(test_a_long_pipeline_does_not_starve_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
