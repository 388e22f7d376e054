/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands whose values are on disk: they wait, and get them, however little memory there is.
 */
#include "tests/unit/backend/cmd/cold_world.h"

#include "backend/cmd/mc.h"

#include <stdio.h>

static void test_more_than_memory(void **state)
{
    enum { COUNT = 20, LEN = 100000 };
    struct cold_world cw;
    struct bytes words[COUNT + 1];
    char names[COUNT][16], *value = must_alloc(LEN);

    (void)state;
    cold_init(&cw, 3000000);
    memset(value, 'v', LEN);
    words[0] = BYTES("mget");
    for (unsigned i = 0; i < COUNT; i++) {
        struct bytes set[3] = {BYTES("set"), {0}, bytes_of(value, LEN)};

        words[i + 1] = set[1] = bytes_of(names[i], (size_t)snprintf(names[i], sizeof(names[i]), "k%u", i));
        cold_run(&cw, set, 3);
        assert_string_equal(cw.w.reply, "+OK\r\n");
        sim_run_for(cw.w.sim, 10000);
    }
    store_memory_max_set(cw.w.store, 1200000);
    store_turn_end(cw.w.store);
    sim_run_for(cw.w.sim, 100000);
    for (unsigned round = 0; round < 3; round++) {
        cold_run(&cw, words, COUNT + 1);
        assert_true(cw.w.reply_len > COUNT * LEN);
        sim_run_for(cw.w.sim, 1000000); /* and memory comes back */
        assert_true(store_marks_of(cw.w.store).appended > 0);
    }
    cold_deinit(&cw);
    mem_free(value);
}

/* Another client. */
struct other {
    struct session session;
    bool is_resumed;
};

static void other_resumed(struct session *session)
{
    CONTAINER_OF(session, struct other, session)->is_resumed = true;
}

static const struct session_io other_io = {world_ignore, other_resumed, world_ignore};

static enum cmd_result other_runs(struct cold_world *cw, struct other *other, const char *command)
{
    struct bytes words[WORLD_WORDS_MAX];
    enum cmd_result result = engine_execute(&other->session, words, world_words(command, words));

    engine_turn_end(cw->w.engine);
    store_turn_end(cw->w.store);
    return result;
}

static void other_waits(struct cold_world *cw, struct other *other, const char *command)
{
    *other = (struct other){0};
    session_init(&other->session, cw->w.engine, &other_io);
    other->session.is_authenticated = true;
    assert_int_equal(other_runs(cw, other, command), CMD_PARKED);
}

/* Once it has been resumed. */
static void other_has(struct cold_world *cw, struct other *other, const char *command, const char *reply)
{
    const struct chunk *chunk;

    for (unsigned i = 0; i < 10000 && !other->is_resumed; i++)
        sim_run_for(cw->w.sim, 100);
    assert_true(other->is_resumed);
    assert_int_equal(other_runs(cw, other, command), CMD_DONE);
    chunk = other->session.out.first;
    assert_int_equal(chunk->end - chunk->start, strlen(reply));
    assert_memory_equal(chunk->data + chunk->start, reply, strlen(reply));
}

/* The first in the queue needs a cold value to be served: its turn is kept, and passes on if it takes nothing. */
static void test_a_turn_is_kept_for_a_cold_value(void **state)
{
    struct other first, second;
    struct cold_world cw;

    (void)state;
    cold_init(&cw, 0);
    cold_ask(&cw, "rpush to a-value-that-is-worth-spilling", ":1\r\n");
    for (unsigned how = 0; how < 3; how++) {
        other_waits(&cw, &first, "blmove from to left left 0");
        other_waits(&cw, &second, "blpop other from 0");
        if (how == 1)
            cold_ask(&cw, "set to a-string-that-is-worth-spilling", "+OK\r\n");
        store_spill_all(cw.w.store);
        cold_ask(&cw, "rpush from x", ":1\r\n");
        assert_false(first.is_resumed);
        assert_false(second.is_resumed);
        if (how == 2)
            session_deinit(&first.session);
        else
            other_has(&cw, &first, "blmove from to left left 0", how == 0 ? "$1\r\nx\r\n"
                      : "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
        if (how == 0) {
            assert_non_null(second.session.blocked);
            cold_ask(&cw, "rpush from y", ":1\r\n");
        }
        cold_ask(&cw, "ping", "+PONG\r\n");
        other_has(&cw, &second, "blpop other from 0", how == 0 ? "*2\r\n$4\r\nfrom\r\n$1\r\ny\r\n"
                  : "*2\r\n$4\r\nfrom\r\n$1\r\nx\r\n");
        cold_ask(&cw, "exists from", ":0\r\n");
        if (how < 2)
            session_deinit(&first.session);
        session_deinit(&second.session);
    }
    sim_run_for(cw.w.sim, 1000000); /* the read of who has left ends, too */
    cold_deinit(&cw);
}

static void set_up_other_database(struct cold_world *cw)
{
    cold_ask(cw, "select 1", "+OK\r\n");
    cold_ask(cw, "set a a-value-that-is-worth-spilling", "+OK\r\n");
    cold_ask(cw, "set w1 a-weight-that-is-worth-spilling", "+OK\r\n");
    cold_ask(cw, "rpush l 1", ":1\r\n");
    cold_ask(cw, "select 0", "+OK\r\n");
    store_spill_all(cw->w.store);
}

/* EXEC finds out in the middle that it needs a value. */
static void test_exec_waits_in_the_middle(void **state)
{
    struct cold_world cw;

    (void)state;
    cold_init(&cw, 0);
    set_up_other_database(&cw);
    cold_ask(&cw, "multi", "+OK\r\n");
    cold_ask(&cw, "set b 1", "+QUEUED\r\n");
    cold_ask(&cw, "select 1", "+QUEUED\r\n");
    cold_ask(&cw, "get a", "+QUEUED\r\n");
    cold_ask(&cw, "sort l by nosort get w*", "+QUEUED\r\n");
    cold_ask(&cw, "set c 1", "+QUEUED\r\n");
    cold_ask(&cw, "exec", "*5\r\n+OK\r\n+OK\r\n$30\r\na-value-that-is-worth-spilling\r\n"
                          "*1\r\n$31\r\na-weight-that-is-worth-spilling\r\n+OK\r\n");
    sim_run_for(cw.w.sim, 3000000);
    assert_int_equal(store_marks_of(cw.w.store).durable, store_lsn(cw.w.store));
    cold_deinit(&cw);
}

/* b and c are written by one EXEC that waits for a value between the two: up to there. `big` values go into several
 * page writes. */
static void exec_in_the_middle(struct cold_world *cw, unsigned big)
{
    static char value[20000];
    const struct bytes set[] = {BYTES("set"), BYTES("big"), bytes_of(value, sizeof(value))};
    struct bytes exec = BYTES("exec");

    set_up_other_database(cw);
    cold_ask(cw, "select 1", "+OK\r\n");
    cold_ask(cw, "multi", "+OK\r\n");
    cold_ask(cw, "set b 1", "+QUEUED\r\n");
    cold_ask(cw, "rpush waited-for 1 2", "+QUEUED\r\n");
    for (unsigned i = 0; i < big; i++)
        cold_run(cw, set, 3);
    cold_ask(cw, "sort l by nosort get w*", "+QUEUED\r\n");
    cold_ask(cw, "set c 1", "+QUEUED\r\n");
    for (unsigned round = 0; round < 10 && cw->w.engine->exclusive == NULL; round++) {
        world_run(&cw->w, &exec, 1);
        store_turn_end(cw->w.store);
        if (cw->w.engine->exclusive == NULL)
            sim_run_for(cw->w.sim, 100000);
    }
    assert_ptr_equal(cw->w.engine->exclusive, &cw->w.session);
}

/* A client that comes meanwhile sees nothing of it, however long it takes, and then all. */
static void test_exec_is_left_in_the_middle(void **state)
{
    struct bytes get[] = {BYTES("mget"), BYTES("b"), BYTES("c")};
    struct cold_world cw;

    (void)state;
    cold_init(&cw, 0);
    exec_in_the_middle(&cw, 0);
    session_deinit(&cw.w.session);
    assert_non_null(cw.w.engine->exclusive);
    session_init(&cw.w.session, cw.w.engine, &cold_io);
    cw.w.session.is_authenticated = true;
    cw.w.session.db = 1;
    world_run(&cw.w, get, 3);
    assert_true(cw.w.session.is_parked);
    sim_run_for(cw.w.sim, 3000000);
    assert_null(cw.w.engine->exclusive);
    cold_ask(&cw, "mget b c", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
    store_turn_end(cw.w.store);
    sim_run_for(cw.w.sim, 3000000);
    assert_int_equal(store_marks_of(cw.w.store).durable, store_lsn(cw.w.store));
    cold_deinit(&cw);
}

/* ... and the process dies before its value has come, after the log has written what there was of it. */
static void test_exec_dies_in_the_middle(void **state)
{
    struct cold_world cw;

    (void)state;
    test_leaks_begin(); /* the memory of a read under way goes with the process */
    for (unsigned is_left = 0; is_left < 2; is_left++) {
        uint64_t written;

        cold_init(&cw, 0);
        exec_in_the_middle(&cw, 50);
        written = store_marks_of(cw.w.store).written;
        if (is_left)
            session_deinit(&cw.w.session);
        sim_run_for(cw.w.sim, is_left ? 0 : 50000);
        assert_non_null(cw.w.engine->exclusive);
        assert_int_equal(store_marks_of(cw.w.store).written, written); /* S9 */
        sim_node_kill(cw.node);
        if (!is_left)
            session_deinit(&cw.w.session);
        engine_destroy(&cw.w.engine);
        store_destroy(&cw.w.store);
        (void)sim_node_start(cw.node);
        cold_open(&cw, 0);
        cold_ask(&cw, "select 1", "+OK\r\n");
        cold_ask(&cw, "exists a b c waited-for big", ":1\r\n");
        cold_deinit(&cw);
    }
    test_leaks_end();
}

/* Who waits for a key that it has made gets the element when it is over, not in between. */
static void test_exec_in_the_middle_serves_nobody(void **state)
{
    struct bytes blpop[] = {BYTES("blpop"), BYTES("waited-for"), BYTES("0")};
    struct cold_world cw, other = {0};

    (void)state;
    cold_init(&cw, 0);
    session_init(&other.w.session, cw.w.engine, &cold_io);
    other.w.session.is_authenticated = true;
    other.w.session.db = 1;
    MAYBE(engine_execute(&other.w.session, blpop, 3) == CMD_PARKED);
    exec_in_the_middle(&cw, 0);
    assert_false(other.is_resumed);
    cold_ask(&cw, "exec", "*4\r\n+OK\r\n:2\r\n*1\r\n$31\r\na-weight-that-is-worth-spilling\r\n+OK\r\n");
    assert_true(other.is_resumed);
    assert_int_equal(engine_execute(&other.w.session, blpop, 3), CMD_DONE);
    assert_int_equal(other.w.session.out.len, strlen("*2\r\n$10\r\nwaited-for\r\n$1\r\n1\r\n"));
    session_deinit(&other.w.session);
    cold_ask(&cw, "lrange waited-for 0 -1", "*1\r\n$1\r\n2\r\n");
    cold_deinit(&cw);
}

static void mc_ask(struct session *session, struct bytes line)
{
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    struct mc_parser parser = {0};
    struct mc_request request;
    struct mc_keys keys;

    mc_keys_init(&keys);
    assert_int_equal(mc_parse(&parser, &keys, &limits, line, &request), PARSE_OK);
    assert_int_equal(mc_text_execute(session, &request), CMD_DONE);
    mc_keys_deinit(&keys);
}

/* Memcache's flush_all whose time comes in the middle comes behind it. */
static void test_exec_in_the_middle_is_not_flushed(void **state)
{
    struct cold_world cw;
    struct session mc;

    (void)state;
    cold_init(&cw, 0);
    session_init(&mc, cw.w.engine, &cold_io);
    mc.is_authenticated = true;
    mc.protocol = SESSION_MC_TEXT;
    cw.w.engine->options.memcache_db = 1;
    mc_ask(&mc, BYTES("flush_all 1\r\n"));
    assert_int_equal(mc.out.len, strlen("OK\r\n"));
    session_deinit(&mc);
    exec_in_the_middle(&cw, 0);
    sim_run_for(cw.w.sim, 2000000);
    cold_ask(&cw, "exec", "*4\r\n+OK\r\n:2\r\n*1\r\n$31\r\na-weight-that-is-worth-spilling\r\n+OK\r\n");
    cold_ask(&cw, "select 1", "+OK\r\n");
    cold_ask(&cw, "exists b c waited-for", ":3\r\n");
    sim_run_for(cw.w.sim, 2000000);
    cold_ask(&cw, "exists b c waited-for", ":0\r\n");
    cold_deinit(&cw);
}

/* The log gets what differs of a HyperLogLog. One that is merged with nothing new is changed all the same, as watchers see. */
static void test_a_hyperloglog_is_changed_in_place(void **state)
{
    struct cold_world cw;
    struct store_stats before, now;
    uint64_t lsn;

    (void)state;
    cold_init(&cw, 0);
    cold_ask(&cw, "pfadd h a", ":1\r\n");
    cold_ask(&cw, "pfdebug todense h", ":1\r\n");
    store_stats_get(cw.w.store, &before);
    cold_ask(&cw, "pfadd h b", ":1\r\n");
    cold_ask(&cw, "pfcount h", ":2\r\n");
    cold_ask(&cw, "pfmerge h", "+OK\r\n"); /* forgets the count */
    lsn = store_lsn(cw.w.store);
    cold_ask(&cw, "watch h", "+OK\r\n");
    cold_ask(&cw, "pfmerge h", "+OK\r\n");
    cold_ask(&cw, "multi", "+OK\r\n");
    cold_ask(&cw, "ping", "+QUEUED\r\n");
    cold_ask(&cw, "exec", "*-1\r\n");
    assert_int_equal(store_lsn(cw.w.store), lsn + 1);
    store_stats_get(cw.w.store, &now);
    assert_true(now.record_bytes_client - before.record_bytes_client < 1000);
    cold_ask(&cw, "pfcount h", ":2\r\n");
    cold_deinit(&cw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_than_memory),
        cmocka_unit_test(test_a_turn_is_kept_for_a_cold_value),
        cmocka_unit_test(test_exec_waits_in_the_middle),
        cmocka_unit_test(test_exec_is_left_in_the_middle),
        cmocka_unit_test(test_exec_dies_in_the_middle),
        cmocka_unit_test(test_exec_in_the_middle_serves_nobody),
        cmocka_unit_test(test_exec_in_the_middle_is_not_flushed),
        cmocka_unit_test(test_a_hyperloglog_is_changed_in_place),
    };

    return cmocka_run_group_tests_name("cold commands", tests, NULL, NULL);
}
