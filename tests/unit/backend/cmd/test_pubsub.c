/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backend/cmd/cmd_world.h"

#include "backend/cmd/pubsub.h"

#include <stdio.h>

static struct cmd_world w;
static struct session other;

static int open_world(void **state)
{
    (void)state;
    world_open(&w);
    session_init(&other, w.engine, w.session.io);
    other.is_authenticated = true;
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    session_deinit(&other);
    world_close(&w);
    return 0;
}

/* What has been sent to the other session. */
static void heard_(const char *text, const char *file, int line)
{
    char got[1024];
    size_t len = 0;

    for (const struct chunk *chunk = other.out.first; chunk != NULL; chunk = chunk->next) {
        memcpy(got + len, chunk->data + chunk->start, chunk->end - chunk->start);
        len += chunk->end - chunk->start;
    }
    got[len] = '\0';
    _assert_string_equal(got, text, file, line);
    outbuf_clear(&w.engine->chunks, &other.out);
}
#define heard(text) heard_(text, __FILE__, __LINE__)

static void say(const char *text)
{
    struct bytes words[WORLD_WORDS_MAX];
    uint32_t count = world_words(text, words);

    assert_int_equal(engine_execute(&other, words, count), CMD_DONE);
    engine_turn_end(w.engine);
}

static void test_messages_reach_channels_and_patterns(void **state)
{
    (void)state;
    say("SUBSCRIBE a b a");
    heard("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"
          "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n");
    say("PSUBSCRIBE a*");
    heard("*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:3\r\n");
    world_ask(&w, "PUBLISH a hello", ":2\r\n");
    heard("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$5\r\nhello\r\n");
    world_ask(&w, "PUBLISH c hello", ":0\r\n");
    heard("");
    other.resp = 3;
    world_ask(&w, "PUBLISH b x", ":1\r\n");
    heard(">3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$1\r\nx\r\n");
}

static void test_unsubscribing(void **state)
{
    (void)state;
    say("UNSUBSCRIBE");
    heard("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    say("UNSUBSCRIBE x");
    heard("*3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:0\r\n");
    assert_null(other.subscriptions);
    say("SUBSCRIBE a b");
    say("PSUBSCRIBE p*");
    outbuf_clear(&w.engine->chunks, &other.out);
    say("UNSUBSCRIBE a");
    heard("*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:2\r\n");
    say("UNSUBSCRIBE");
    heard("*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:1\r\n");
    assert_true(pubsub_is_subscribed(&other));
    say("PUNSUBSCRIBE");
    heard("*3\r\n$12\r\npunsubscribe\r\n$2\r\np*\r\n:0\r\n");
    assert_false(pubsub_is_subscribed(&other));
    assert_null(other.subscriptions);
}

static void test_shard_channels_are_apart(void **state)
{
    (void)state;
    say("SSUBSCRIBE a");
    heard("*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n");
    world_ask(&w, "PUBLISH a x", ":0\r\n");
    world_ask(&w, "SPUBLISH a x", ":1\r\n");
    heard("*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
    world_ask(&w, "PUBSUB SHARDCHANNELS", "*1\r\n$1\r\na\r\n");
    world_ask(&w, "PUBSUB SHARDNUMSUB a b", "*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n");
    world_ask(&w, "PUBSUB CHANNELS", "*0\r\n");
    say("SUNSUBSCRIBE");
    heard("*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n");
}

static void test_pubsub_tells_what_is_there(void **state)
{
    (void)state;
    say("SUBSCRIBE news sport");
    say("PSUBSCRIBE n* s*");
    world_ask(&w, "PUBSUB CHANNELS n*", "*1\r\n$4\r\nnews\r\n");
    world_ask(&w, "PUBSUB NUMSUB news x", "*4\r\n$4\r\nnews\r\n:1\r\n$1\r\nx\r\n:0\r\n");
    world_ask(&w, "PUBSUB NUMPAT", ":2\r\n");
    world_ask(&w, "PUBSUB CHANNELS a b", "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.\r\n");
}

static void test_keyspace_events(void **state)
{
    (void)state;
    say("PSUBSCRIBE __key*");
    outbuf_clear(&w.engine->chunks, &other.out);
    world_ask(&w, "SET k v", "+OK\r\n");
    heard("");
    world_ask(&w, "CONFIG SET notify-keyspace-events KEA", "+OK\r\n");
    pubsub_notify(w.engine, NOTIFY_STRING, "set", BYTES("k"), 3);
    heard("*4\r\n$8\r\npmessage\r\n$6\r\n__key*\r\n$16\r\n__keyspace@3__:k\r\n$3\r\nset\r\n"
          "*4\r\n$8\r\npmessage\r\n$6\r\n__key*\r\n$18\r\n__keyevent@3__:set\r\n$1\r\nk\r\n");
    world_ask(&w, "CONFIG SET notify-keyspace-events Kx", "+OK\r\n");
    pubsub_notify(w.engine, NOTIFY_STRING, "set", BYTES("k"), 3);
    heard("");
}

static void test_monitor(void **state)
{
    (void)state;
    say("MONITOR");
    heard("+OK\r\n");
    (void)snprintf(w.session.peer, sizeof(w.session.peer), "127.0.0.1:5");
    world_put(&w, "SET k", bytes_of("a\"\r\n\x01\xff", 6), "+OK\r\n");
    assert_true(other.out.len > 20);
    assert_non_null(strstr(other.out.first->data + other.out.first->start,
                           "[0 127.0.0.1:5] \"SET\" \"k\" \"a\\\"\\r\\n\\x01\\xff\"\r\n"));
    outbuf_clear(&w.engine->chunks, &other.out);
    pubsub_session_clear(&other);
    world_ask(&w, "DEL k", ":1\r\n");
    heard("");
}

/* What a message tells is as safe as what its publisher had seen (P2). */
static void test_messages_wait_for_what_they_tell_of(void **state)
{
    (void)state;
    say("SUBSCRIBE a");
    world_ask(&w, "SET k v", "+OK\r\n");
    assert_true(other.hold_lsn < store_lsn(w.store));
    world_ask(&w, "PUBLISH a k", ":1\r\n");
    assert_int_equal(other.hold_lsn, store_lsn(w.store));
    outbuf_clear(&w.engine->chunks, &other.out);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_messages_reach_channels_and_patterns),
        TEST(test_unsubscribing),
        TEST(test_shard_channels_are_apart),
        TEST(test_pubsub_tells_what_is_there),
        TEST(test_keyspace_events),
        TEST(test_monitor),
        TEST(test_messages_wait_for_what_they_tell_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
