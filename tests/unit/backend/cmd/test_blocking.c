/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for keys, seen from several sessions: who is served, with what, and when it ends otherwise. */
#include "tests/unit/backend/cmd/cmd_world.h"

#define WAITERS 4

struct waiter {
    struct session session;
    const char *command;
    int resumed;
};

static void waiter_resumed(struct session *session)
{
    CONTAINER_OF(session, struct waiter, session)->resumed++;
}

static const struct session_io waiter_io = {world_ignore, waiter_resumed, world_ignore};

static void waits(struct cmd_world *w, struct waiter *waiter, const char *command)
{
    struct bytes words[WORLD_WORDS_MAX];

    *waiter = (struct waiter){.command = command};
    session_init(&waiter->session, w->engine, &waiter_io);
    assert_int_equal(engine_execute(&waiter->session, words, world_words(command, words)), CMD_PARKED);
    engine_turn_end(w->engine);
    assert_true(waiter->session.out.len == 0);
}

static void is_still_waiting(struct waiter *waiter)
{
    assert_int_equal(waiter->resumed, 0);
    assert_non_null(waiter->session.blocked);
}

/* It was resumed once; its connection gives the request again, which is over then. */
static void has(struct cmd_world *w, struct waiter *waiter, const char *reply)
{
    struct bytes words[WORLD_WORDS_MAX];
    char text[256] = "";
    size_t len = 0;

    assert_int_equal(waiter->resumed, 1);
    assert_int_equal(engine_execute(&waiter->session, words, world_words(waiter->command, words)), CMD_DONE);
    engine_turn_end(w->engine);
    for (const struct chunk *chunk = waiter->session.out.first; chunk != NULL; chunk = chunk->next) {
        memcpy(text + len, chunk->data + chunk->start, chunk->end - chunk->start);
        len += chunk->end - chunk->start;
    }
    assert_string_equal(text, reply);
    assert_null(waiter->session.blocked);
    session_deinit(&waiter->session);
}

static void test_first_come_first_served(void **state)
{
    struct waiter waiters[WAITERS];
    struct cmd_world w;

    (void)state;
    world_open(&w);
    for (int i = 0; i < WAITERS; i++)
        waits(&w, &waiters[i], i == 1 ? "blpop other q q 0" : "blpop q 0");
    assert_int_equal(w.engine->blocked_count, WAITERS);
    world_ask(&w, "rpush q a b", ":2\r\n");
    world_ask(&w, "exists q", ":0\r\n");
    has(&w, &waiters[0], "*2\r\n$1\r\nq\r\n$1\r\na\r\n");
    has(&w, &waiters[1], "*2\r\n$1\r\nq\r\n$1\r\nb\r\n");
    is_still_waiting(&waiters[2]);
    session_deinit(&waiters[2].session); /* its place goes to the next */
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "rpush q c d", "+QUEUED\r\n");
    world_ask(&w, "llen q", "+QUEUED\r\n");
    world_ask(&w, "exec", "*2\r\n:2\r\n:2\r\n"); /* nobody is served inside */
    has(&w, &waiters[3], "*2\r\n$1\r\nq\r\n$1\r\nc\r\n");
    world_ask(&w, "lrange q 0 -1", "*1\r\n$1\r\nd\r\n");
    assert_int_equal(w.engine->blocked_count, 0);
    world_close(&w);
}

/* An EXEC fills both keys of the first one: it gets what came first, and who waits for the other gets that. */
static void test_the_key_changed_first_serves(void **state)
{
    struct waiter both, other;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    waits(&w, &both, "blpop x a b 0");
    waits(&w, &other, "blmpop 0 2 y a left");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "rpush b 1", "+QUEUED\r\n");
    world_ask(&w, "rpush a 2", "+QUEUED\r\n");
    world_ask(&w, "exec", "*2\r\n:1\r\n:1\r\n");
    has(&w, &both, "*2\r\n$1\r\nb\r\n$1\r\n1\r\n");
    has(&w, &other, "*2\r\n$1\r\na\r\n*1\r\n$1\r\n2\r\n");
    world_ask(&w, "exists a b", ":0\r\n");
    waits(&w, &both, "bzpopmin a b 0");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "zadd b 1 m", "+QUEUED\r\n");
    world_ask(&w, "zadd a 2 m", "+QUEUED\r\n");
    world_ask(&w, "exec", "*2\r\n:1\r\n:1\r\n");
    has(&w, &both, "*3\r\n$1\r\nb\r\n$1\r\nm\r\n$1\r\n1\r\n");
    world_close(&w);
}

static void test_another_type_serves_nobody(void **state)
{
    struct waiter list, zset;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    waits(&w, &list, "blpop q 0");
    waits(&w, &zset, "bzpopmin q 0");
    world_ask(&w, "set q 1", "+OK\r\n");
    is_still_waiting(&list);
    is_still_waiting(&zset);
    world_ask(&w, "del q", ":1\r\n");
    world_ask(&w, "zadd q 1 m", ":1\r\n");
    is_still_waiting(&list);
    has(&w, &zset, "*3\r\n$1\r\nq\r\n$1\r\nm\r\n$1\r\n1\r\n");
    world_ask(&w, "rpush x 1", ":1\r\n");
    world_ask(&w, "rename x q", "+OK\r\n");
    has(&w, &list, "*2\r\n$1\r\nq\r\n$1\r\n1\r\n");
    world_close(&w);
}

/* A waiter that is served may serve another. */
static void test_chains(void **state)
{
    struct waiter first, second;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    waits(&w, &first, "blmove a b left right 0");
    waits(&w, &second, "blpop b 0");
    world_ask(&w, "rpush a x", ":1\r\n");
    has(&w, &first, "$1\r\nx\r\n");
    has(&w, &second, "*2\r\n$1\r\nb\r\n$1\r\nx\r\n");
    world_ask(&w, "exists a b", ":0\r\n");
    world_close(&w);
}

static void test_timeouts_and_unblock(void **state)
{
    struct waiter timed, told, failed;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    waits(&w, &timed, "blpop q 0.5");
    sim_run_for(w.sim, 400000);
    is_still_waiting(&timed);
    sim_run_for(w.sim, 200000);
    has(&w, &timed, "*-1\r\n");
    waits(&w, &told, "blpop q 0");
    waits(&w, &failed, "blpop q 0");
    world_ask(&w, "client unblock 3", ":1\r\n");
    world_ask(&w, "client unblock 3", ":0\r\n");
    world_ask(&w, "client unblock 4 error", ":1\r\n");
    world_ask(&w, "client unblock 1", ":0\r\n");
    world_ask(&w, "client unblock 1 foo", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n");
    has(&w, &told, "*-1\r\n");
    has(&w, &failed, "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
    world_ask(&w, "blpop q -1", "-ERR timeout is negative\r\n");
    world_ask(&w, "blpop q 1e400", "-ERR timeout is negative\r\n");
    world_ask(&w, "brpoplpush q d 9223372036854775808", "-ERR timeout is negative\r\n");
    world_ask(&w, "bzmpop inf 1 z min", "-ERR timeout is negative\r\n");
    world_ask(&w, "blpop q 9223372036854776", "-ERR timeout is negative\r\n");
    world_ask(&w, "blpop q 9223372036854775", "-ERR timeout is out of range\r\n");
    world_ask(&w, "blpop q x", "-ERR timeout is not a float or out of range\r\n");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_the_key_changed_first_serves),
        cmocka_unit_test(test_another_type_serves_nobody),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_timeouts_and_unblock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
