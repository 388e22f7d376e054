/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis's commands where they cannot be done: the log has failed, the disk is full, a key is too
 * long. What is answered, word for word, what goes on all the same, and that nothing has changed.
 * (memcache's: test_mc_trouble.)
 */
#include "tests/unit/backend/cmd/cold_world.h"

#include <stdio.h>

#define DISK_FAILED                                                                                \
    "MISCONF A write or a flush of the log has failed. Commands that may modify the data set are " \
    "disabled until an "                                                                           \
    "operator acts. Please check the server's log for details about the error.\r\n"
#define DISK_FULL                                                                                  \
    "MISCONF No room is left on the disk for data. Commands that may modify the data set are "     \
    "disabled, but those "                                                                         \
    "that delete; service resumes when there is room.\r\n"
#define USED_UP                                                                                    \
    "MISCONF No room is left on the disk, nor of what is kept for commands that delete; nothing "  \
    "was changed, and service resumes when there is room.\r\n"
#define KEY_LENGTH "-ERR key is longer than 65535 bytes\r\n"

static const char *const beginning[] = {
    "set s value",    "set n 10",       "set other value",  "rpush l a b c",       "sadd s1 a b",
    "zadd z 1 a 2 b", "hset h f 1 g 2", "set doomed value", "rpush doomed-list a",
};

static const char *const adds[] = {
    "set s other",
    "set new x",
    "setnx new x",
    "getset s x",
    "mset s x new y",
    "append s x",
    "setrange s 0 x",
    "incr n",
    "incrbyfloat n 1",
    "setbit s 1 1",
    "rpush l d",
    "lpush new a",
    "lset l 0 x",
    "linsert l before a x",
    "lmove l l left left",
    "sadd s1 c",
    "sunionstore new s1",
    "zadd z 3 c",
    "zincrby z 1 a",
    "hset h f 2",
    "hincrby h f 1",
    "pfadd new a",
    "copy s new",
    "bitop not new s",
    "sort l alpha store new",
    "geoadd new 1 1 a",
};

/* What takes away, and needs no room that is not kept for it. */
static const struct {
    const char *line, *reply;
} takes[] = {
    {"lpop l", "$1\r\na\r\n"},
    {"ltrim l 0 0", "+OK\r\n"},
    {"lrem l 0 b", ":1\r\n"},
    {"smove s1 s3 b", ":1\r\n"},
    {"srem s1 a", ":1\r\n"},
    {"zrem z a", ":1\r\n"},
    {"zpopmin z", "*2\r\n$1\r\nb\r\n$1\r\n2\r\n"},
    {"hdel h f", ":1\r\n"},
    {"getdel n", "$2\r\n10\r\n"},
    {"expire s 100", ":1\r\n"},
    {"persist s", ":1\r\n"},
    {"rename s s2", "+OK\r\n"},
    {"del doomed", ":1\r\n"},
    {"unlink doomed-list", ":1\r\n"},
    {"flushall", "+OK\r\n"},
};

static const struct {
    const char *line, *reply;
} reads[] = {
    {"get s", "$5\r\nvalue\r\n"},
    {"mget n none", "*2\r\n$2\r\n10\r\n$-1\r\n"},
    {"lrange l 0 -1", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"},
    {"sismember s1 a", ":1\r\n"},
    {"zscore z b", "$1\r\n2\r\n"},
    {"hget h f", "$1\r\n1\r\n"},
    {"exists s n none", ":2\r\n"},
    {"ttl s", ":-1\r\n"},
    {"ping", "+PONG\r\n"},
    {"publish channel word", ":0\r\n"},
    {"type l", "+list\r\n"},
    {"config set maxclients 100", "+OK\r\n"},
};

static struct cold_world cw;

static void begin(void)
{
    cold_init(&cw, 0);
    for (size_t i = 0; i < ARRAY_COUNT(beginning); i++) {
        struct bytes words[WORLD_WORDS_MAX];

        cold_run(&cw, words, world_words(beginning[i], words));
        assert_true(cw.w.reply[0] == '+' || cw.w.reply[0] == ':');
    }
    sim_run_for(cw.w.sim, 3000000);
}

static void info_says(const char *section, const char *line)
{
    struct bytes words[2] = {BYTES("info"), bytes_of_string(section)};
    char text[100];

    world_run(&cw.w, words, 2);
    (void)snprintf(text, sizeof(text), "\n%s\r\n", line);
    if (strstr(cw.w.reply, text) == NULL)
        print_message("# %s is missing in\n%s", line, cw.w.reply);
    assert_non_null(strstr(cw.w.reply, text));
}

static void refused(const char *line, const char *reply)
{
    uint64_t lsn = store_lsn(cw.w.store);

    cold_ask(&cw, line, reply);
    assert_int_equal(store_lsn(cw.w.store), lsn);
}

static void reads_go_on(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(reads); i++)
        cold_ask(&cw, reads[i].line, reads[i].reply);
}

/* A transaction that was begun before, and one that is begun now. */
static void transactions_are_refused(const char *why)
{
    char text[400];

    (void)snprintf(text, sizeof(text), "-EXECABORT Transaction discarded because of: %s", why);
    refused("exec", text);
    (void)snprintf(text, sizeof(text), "-%s", why);
    cold_ask(&cw, "multi", "+OK\r\n");
    refused("set s other", text);
    refused("exec", "-EXECABORT Transaction discarded because of previous errors.\r\n");
}

/* The operation that fails is one of the node's own log: what was answered before stays, nothing is
 * written any more. */
static void log_fails(enum sim_disk_op kind)
{
    struct store_marks marks;

    begin();
    marks = store_marks_of(cw.w.store);
    assert_int_equal(marks.durable, store_lsn(cw.w.store));
    sim_disk_fail(cw.node, kind, NULL, -EIO, 1);
    cold_ask(&cw, "set other new", "+OK\r\n"); /* it is in the log ring */
    cold_ask(&cw, "multi", "+OK\r\n");
    cold_ask(&cw, "set s other", "+QUEUED\r\n");
    sim_run_for(cw.w.sim, 3000000);
    transactions_are_refused(DISK_FAILED);
    for (size_t i = 0; i < ARRAY_COUNT(adds); i++)
        refused(adds[i], "-" DISK_FAILED);
    for (size_t i = 0; i < ARRAY_COUNT(takes); i++)
        refused(takes[i].line, "-" DISK_FAILED);
    reads_go_on();
    sim_run_for(cw.w.sim, 10000000); /* for good */
    refused("set s other", "-" DISK_FAILED);
    assert_int_equal(store_marks_of(cw.w.store).durable, marks.durable);
    info_says("store", "read_only:1");
    info_says("store", "disk_full:0");
    info_says("persistence", "aof_last_write_status:err");
    info_says("persistence", "rdb_last_bgsave_status:err");
    cold_deinit(&cw);
}

static void test_a_write_has_failed(void **state)
{
    (void)state;
    log_fails(SIM_DISK_WRITE);
}

static void test_a_flush_has_failed(void **state)
{
    (void)state;
    log_fails(SIM_DISK_DATASYNC);
}

/* Until it says so. */
static void fill(void)
{
    char *value = must_alloc(30000);
    unsigned count = 0;

    memset(value, 'v', 30000);
    store_disk_max_set(cw.w.store, 4u << 20);
    for (; count < 1000; count++) {
        char key[16];
        struct bytes words[] = {BYTES("set"),
                                bytes_of(key, (size_t)snprintf(key, sizeof(key), "big-%u", count)),
                                bytes_of(value, 30000)};

        cold_run(&cw, words, 3);
        if (strcmp(cw.w.reply, "+OK\r\n") != 0)
            break;
    }
    assert_string_equal(cw.w.reply, "-" DISK_FULL);
    assert_true(count > 50);
    mem_free(value);
}

/* What takes away is taken, and then there is room. */
static void test_the_disk_is_full(void **state)
{
    (void)state;
    begin();
    cold_ask(&cw, "multi", "+OK\r\n");
    cold_ask(&cw, "set s other", "+QUEUED\r\n");
    cold_ask(&cw, "discard", "+OK\r\n");
    fill();
    for (size_t i = 0; i < ARRAY_COUNT(adds); i++)
        refused(adds[i], "-" DISK_FULL);
    cold_ask(&cw, "multi", "+OK\r\n");
    refused("set s other", "-" DISK_FULL);
    refused("exec", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    reads_go_on();
    info_says("store", "disk_full:1");
    info_says("store", "read_only:0");
    info_says("store", "write_errors:0");
    info_says("persistence", "aof_last_write_status:ok");
    for (size_t i = 0; i < ARRAY_COUNT(takes); i++)
        cold_ask(&cw, takes[i].line, takes[i].reply);
    sim_run_for(cw.w.sim, 10000000);
    cold_ask(&cw, "set s other", "+OK\r\n");
    cold_ask(&cw, "get s", "$5\r\nother\r\n");
    info_says("store", "disk_full:0");
    cold_deinit(&cw);
}

/* No time goes by, so nothing makes room: changes that take away use up what is kept for them. Then they are refused before
 * they begin, readers see what was there, and no answer is held back. */
static void test_what_is_kept_for_deletes_is_used_up(void **state)
{
    /* Of more words, so that the place that those had not enough of is none for them. */
    static const char *const more[] = {
        "ltrim l 0 0", "lrem l 0 b", "smove s1 s3 b", "srem s1 a", "zrem z a", "hdel h f", "rename s s2", "del doomed doomed-list",
    };
    unsigned count = 0;

    (void)state;
    begin();
    fill();
    for (; count < 200000; count++) {
        struct bytes words[WORLD_WORDS_MAX];

        world_run(&cw.w, words, world_words(count % 2 == 0 ? "expire s 1000" : "persist s", words));
        if (strcmp(cw.w.reply, ":1\r\n") != 0)
            break;
    }
    assert_string_equal(cw.w.reply, "-" USED_UP);
    assert_true(count > 100);
    for (size_t i = 0; i < ARRAY_COUNT(more); i++)
        refused(more[i], "-" USED_UP);
    cold_ask(&cw, "lrange l 0 -1", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
    cold_ask(&cw, "zscore z b", "$1\r\n2\r\n");
    cold_ask(&cw, "exists doomed doomed-list n", ":3\r\n");
    cold_deinit(&cw);
}

/* SPOP takes what its words do not name: what is left may have place for them, and none for that. */
static void test_what_is_popped_has_no_place(void **state)
{
    static char member[20000], name[20000];
    struct bytes probe[] = {BYTES("del"), bytes_of(name, sizeof(name))};

    (void)state;
    begin();
    memset(name, 'n', sizeof(name));
    for (unsigned i = 0; i < 5; i++) {
        struct bytes words[] = {BYTES("sadd"), BYTES("long"), bytes_of(member, sizeof(member))};

        memset(member, (int)('a' + i), sizeof(member));
        cold_run(&cw, words, 3);
        assert_string_equal(cw.w.reply, ":1\r\n");
    }
    fill();
    for (unsigned i = 0; i < 200000; i++) {
        cold_run(&cw, probe, 2);
        if (strcmp(cw.w.reply, ":0\r\n") != 0)
            break;
        cold_ask(&cw, i % 2 == 0 ? "expire s 1000" : "persist s", ":1\r\n");
    }
    assert_string_equal(cw.w.reply, "-" USED_UP);
    cold_ask(&cw, "expire s 1000", ":1\r\n"); /* words have a place */
    refused("spop long 3", "-" USED_UP);
    refused("spop long", "-" USED_UP);
    cold_ask(&cw, "scard long", ":5\r\n");
    info_says("store", "read_only:0");
    cold_deinit(&cw);
}

/* The words and a long key behind them. */
static void ask_long(const char *line, struct bytes key, const char *reply)
{
    struct bytes words[WORLD_WORDS_MAX + 1];
    uint32_t count = world_words(line, words);

    words[count] = key;
    cold_run(&cw, words, count + 1);
    assert_string_equal(cw.w.reply, reply);
}

/* The longest key that there can be is a key like others; one byte more, wherever it stands among
 * the arguments, and a write is refused. No read can find one: it says that there is none. */
static void test_a_key_is_too_long(void **state)
{
    static char name[STORE_KEY_MAX + 1];
    static const char *const writes[] = {
        "set %s x",
        "mset a x %s y",
        "del s %s",
        "rename s %s",
        "rename %s s",
        "append %s x",
        "lpush %s x",
        "sadd %s x",
        "zadd %s 1 x",
        "hset %s f x",
        "copy s %s",
        "expire %s 100",
        "sunionstore %s s1",
        "zunionstore z2 2 z %s",
        "bitop not %s s",
        "lmove l %s left left",
        "pfadd %s x",
        "getdel %s",
        "sort l alpha store %s",
    };
    const struct bytes key = bytes_of(name, sizeof(name));
    struct bytes words[WORLD_WORDS_MAX];

    (void)state;
    memset(name, 'k', sizeof(name));
    begin();
    for (size_t i = 0; i < ARRAY_COUNT(writes); i++) {
        uint64_t lsn = store_lsn(cw.w.store);
        uint32_t count = world_words(writes[i], words);

        for (uint32_t j = 0; j < count; j++)
            words[j] = bytes_equal(words[j], BYTES("%s")) ? key : words[j];
        cold_run(&cw, words, count);
        if (strcmp(cw.w.reply, KEY_LENGTH) != 0)
            print_message("# %s\n", writes[i]);
        assert_string_equal(cw.w.reply, KEY_LENGTH);
        assert_int_equal(store_lsn(cw.w.store), lsn);
    }
    ask_long("get", key, "$-1\r\n");
    ask_long("exists s", key, ":1\r\n");
    ask_long("ttl", key, ":-2\r\n");
    ask_long("llen", key, ":0\r\n");
    ask_long("set s", key, "+OK\r\n"); /* a value may have that length, a member, too */
    ask_long("sadd s1", key, ":1\r\n");
    cold_ask(&cw, "multi", "+OK\r\n");
    ask_long("incr", key, KEY_LENGTH);
    cold_ask(&cw, "exec", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    ask_long("incr", bytes_first(key, STORE_KEY_MAX), ":1\r\n");
    ask_long("incr", bytes_first(key, STORE_KEY_MAX), ":2\r\n");
    cold_deinit(&cw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_write_has_failed),
        cmocka_unit_test(test_a_flush_has_failed),
        cmocka_unit_test(test_the_disk_is_full),
        cmocka_unit_test(test_what_is_kept_for_deletes_is_used_up),
        cmocka_unit_test(test_what_is_popped_has_no_place),
        cmocka_unit_test(test_a_key_is_too_long),
    };

    return cmocka_run_group_tests_name("trouble", tests, NULL, NULL);
}
