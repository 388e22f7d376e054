/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of every command before it runs, transactions, and the connection's own commands: Redis's texts. */
#include "tests/unit/backend/cmd/cmd_world.h"

#include "backend/cmd/settings.h"

static void test_unknown_commands_and_counts_of_arguments(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "foo", "-ERR unknown command 'foo', with args beginning with: \r\n");
    world_ask(&w, "foo a b", "-ERR unknown command 'foo', with args beginning with: 'a' 'b' \r\n");
    world_put(&w, "foo", BYTES("a\r\nb"), "-ERR unknown command 'foo', with args beginning with: 'a  b' \r\n");
    world_put(&w, "foo", BYTES("a\0b"), "-ERR unknown command 'foo', with args beginning with: 'a' \r\n");
    world_ask(&w, "xadd s * a b", "-ERR unknown command 'xadd', with args beginning with: 's' '*' 'a' 'b' \r\n");
    world_ask(&w, "GET", "-ERR wrong number of arguments for 'get' command\r\n");
    world_ask(&w, "client", "-ERR wrong number of arguments for 'client' command\r\n");
    world_ask(&w, "client bar", "-ERR unknown subcommand 'bar'. Try CLIENT HELP.\r\n");
    world_ask(&w, "client setname", "-ERR wrong number of arguments for 'client|setname' command\r\n");
    assert_int_equal(w.engine->counters.errors, 9);
    assert_int_equal(w.engine->counters.per_command[COMMAND_get].rejected, 1);
    world_close(&w);
}

static void test_password(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "auth x", "-ERR AUTH <password> called without any password configured for the default user. Are you "
                            "sure your configuration is correct?\r\n");
    settings_take(w.engine, BYTES("requirepass"), BYTES("secret"));
    w.session.is_authenticated = false;
    world_ask(&w, "get a", "-NOAUTH Authentication required.\r\n");
    world_ask(&w, "multi", "-NOAUTH Authentication required.\r\n");
    world_ask(&w, "auth wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    world_ask(&w, "auth other secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    world_ask(&w, "auth secret", "+OK\r\n");
    world_ask(&w, "get a", "$-1\r\n");
    world_ask(&w, "reset", "+RESET\r\n");
    world_ask(&w, "get a", "-NOAUTH Authentication required.\r\n");
    world_ask(&w, "hello 4", "-NOPROTO unsupported protocol version\r\n");
    world_ask(&w, "hello 3 auth default secret setname me",
              "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n"
              "$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n");
    world_ask(&w, "client getname", "$2\r\nme\r\n");
    world_ask(&w, "get a", "_\r\n");
    world_close(&w);
}

static void test_transactions(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "exec", "-ERR EXEC without MULTI\r\n");
    world_ask(&w, "discard", "-ERR DISCARD without MULTI\r\n");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "multi", "-ERR MULTI calls can not be nested\r\n");
    world_ask(&w, "watch a", "-ERR WATCH inside MULTI is not allowed\r\n");
    world_ask(&w, "set a 1", "+QUEUED\r\n");
    world_ask(&w, "lpush a 1", "+QUEUED\r\n");
    world_ask(&w, "incr a", "+QUEUED\r\n");
    world_ask(&w, "exec",
              "*3\r\n+OK\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n:2\r\n");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "set a", "-ERR wrong number of arguments for 'set' command\r\n");
    world_ask(&w, "set a 5", "+QUEUED\r\n");
    world_ask(&w, "exec", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    world_ask(&w, "get a", "$1\r\n2\r\n");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "select 3", "+QUEUED\r\n");
    world_ask(&w, "set b 1", "+QUEUED\r\n");
    world_ask(&w, "exec", "*2\r\n+OK\r\n+OK\r\n");
    world_ask(&w, "get b", "$1\r\n1\r\n");
    world_ask(&w, "select 16", "-ERR DB index is out of range\r\n");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "blpop none 0", "+QUEUED\r\n");
    world_ask(&w, "exec", "*1\r\n*-1\r\n");
    assert_null(w.session.transaction);
    world_close(&w);
}

static const struct session_io silent_io = {world_ignore, world_ignore, world_ignore};

static void other_runs(struct cmd_world *w, struct session *other, const char *text)
{
    struct bytes words[WORLD_WORDS_MAX];

    assert_int_equal(engine_execute(other, words, world_words(text, words)), CMD_DONE);
    engine_turn_end(w->engine);
    outbuf_clear(&w->engine->chunks, &other->out);
}

static void test_watch(void **state)
{
    static const char *const touches[] = {"set k 2", "del k", "expire k -1", "flushall", "flushdb", "append k x",
                                          "rename k l", "set l 1"};
    struct session other;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    session_init(&other, w.engine, &silent_io);
    for (size_t i = 0; i < ARRAY_COUNT(touches); i++) {
        world_ask(&w, "set k 1", "+OK\r\n");
        world_ask(&w, "watch j k k l", "+OK\r\n");
        other_runs(&w, &other, touches[i]);
        world_ask(&w, "multi", "+OK\r\n");
        world_ask(&w, "set k mine", "+QUEUED\r\n");
        world_ask(&w, "exec", "*-1\r\n");
    }
    world_ask(&w, "set k 1", "+OK\r\n");
    world_ask(&w, "watch k", "+OK\r\n");
    other_runs(&w, &other, "get k");
    other_runs(&w, &other, "set other 1");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "exec", "*0\r\n");
    world_ask(&w, "watch k", "+OK\r\n");
    other_runs(&w, &other, "set k 3");
    world_ask(&w, "unwatch", "+OK\r\n");
    world_ask(&w, "multi", "+OK\r\n");
    world_ask(&w, "exec", "*0\r\n");
    world_ask(&w, "watch a b", "+OK\r\n"); /* its end undoes it */
    session_deinit(&other);
    world_close(&w);
}

static void test_reply_modes(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "client reply skip", "");
    world_ask(&w, "ping", "");
    world_ask(&w, "ping", "+PONG\r\n");
    world_ask(&w, "client reply off", "");
    world_ask(&w, "ping", "");
    world_ask(&w, "client reply skip", "");
    world_ask(&w, "set a 1", "");
    world_ask(&w, "client reply on", "+OK\r\n");
    world_ask(&w, "get a", "$1\r\n1\r\n");
    world_ask(&w, "client reply maybe", "-ERR syntax error\r\n");
    world_close(&w);
}

static void test_client_commands(void **state)
{
    struct session other;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    session_init(&other, w.engine, &silent_io);
    memcpy(other.peer, "1.2.3.4:5", 10);
    world_ask(&w, "client id", ":1\r\n");
    world_ask(&w, "client kill id 7", ":0\r\n");
    world_ask(&w, "client kill id 0", "-ERR client-id should be greater than 0\r\n");
    world_ask(&w, "client kill type foo", "-ERR Unknown client type 'foo'\r\n");
    world_ask(&w, "client kill 1.2.3.4:6", "-ERR No such client\r\n");
    world_ask(&w, "client kill 1.2.3.4:5", "+OK\r\n");
    world_ask(&w, "client kill addr 1.2.3.4:5 user default", ":1\r\n");
    world_ask(&w, "client kill id 1", ":0\r\n"); /* skips itself unless told otherwise */
    world_ask(&w, "client kill id 1 skipme no", ":1\r\n");
    assert_true(w.session.close_after_reply);
    w.session.close_after_reply = false;
    world_put(&w, "client setname", BYTES("a b"),
              "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
    world_ask(&w, "client setinfo lib-name x", "+OK\r\n");
    world_ask(&w, "client setinfo foo x", "-ERR Unrecognized option 'foo'\r\n");
    world_ask(&w, "client tracking on", "-ERR client-side caching is not supported\r\n");
    world_ask(&w, "client tracking off", "+OK\r\n");
    world_ask(&w, "client getredir", ":-1\r\n");
    world_ask(&w, "client list id x", "-ERR Invalid client ID\r\n");
    world_ask(&w, "client list id 9", "$0\r\n\r\n");
    session_deinit(&other);
    world_close(&w);
}

static void assert_told(struct cmd_world *w, const char *words, const char *part)
{
    struct bytes argv[WORLD_WORDS_MAX];

    world_run(w, argv, world_words(words, argv));
    if (strstr(w->reply, part) == NULL)
        fail_msg("%s: no %s in %s", words, part, w->reply);
}

static void test_pause_holds_writes_alone_or_all(void **state)
{
    struct bytes words[WORLD_WORDS_MAX];
    struct session other;
    struct cmd_world w;

    (void)state;
    world_open(&w);
    session_init(&other, w.engine, &silent_io);
    world_ask(&w, "client pause 1000 write", "+OK\r\n");
    world_ask(&w, "get a", "$-1\r\n");
    assert_int_equal(engine_execute(&other, words, world_words("set a 1", words)), CMD_PARKED);
    assert_true(other.is_parked);
    assert_told(&w, "info clients", "\r\nblocked_clients:1\r\n");
    assert_told(&w, "client list", " flags=b ");
    world_ask(&w, "client unpause", "+OK\r\n");
    assert_false(other.is_parked);
    assert_told(&w, "info clients", "\r\nblocked_clients:0\r\n");
    world_ask(&w, "client pause 1000", "+OK\r\n");
    assert_int_equal(engine_execute(&other, words, world_words("get a", words)), CMD_PARKED);
    sim_run_for(w.sim, 2000000);
    assert_false(other.is_parked);
    assert_int_equal(engine_execute(&other, words, world_words("get a", words)), CMD_DONE);
    session_deinit(&other);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_commands_and_counts_of_arguments),
        cmocka_unit_test(test_password),
        cmocka_unit_test(test_transactions),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_reply_modes),
        cmocka_unit_test(test_client_commands),
        cmocka_unit_test(test_pause_holds_writes_alone_or_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
