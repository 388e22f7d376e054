/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backend/cmd/cmd_world.h"

#include "backend/cmd/latency.h"
#include "backend/cmd/settings.h"
#include "backend/cmd/slowlog.h"
#include "common/base/log.h"

#include <stdio.h>

static struct cmd_world w;

static int open_world(void **state)
{
    (void)state;
    world_open(&w);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static void send_words(const char *text)
{
    struct bytes words[WORLD_WORDS_MAX];
    uint32_t count = world_words(text, words);

    world_run(&w, words, count);
}

static bool says(const char *part)
{
    return strstr(w.reply, part) != NULL;
}

static void test_config_get_shows_names_once(void **state)
{
    (void)state;
    world_ask(&w, "CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
    world_ask(&w, "CONFIG GET MAXmemory", "*2\r\n$9\r\nMAXmemory\r\n$1\r\n0\r\n");
    world_ask(&w, "CONFIG GET maxmemory maxmemor[y] nothing", "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
    world_ask(&w, "CONFIG GET hash-max-*-entries",
              "*4\r\n$25\r\nhash-max-listpack-entries\r\n$3\r\n512\r\n$24\r\nhash-max-ziplist-entries\r\n$3\r\n512\r\n");
    w.session.resp = 3;
    world_ask(&w, "CONFIG GET appendonly", "%1\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
    send_words("CONFIG GET *");
    assert_true(says("notify-keyspace-events"));
}

static void test_config_set_checks_values(void **state)
{
#define FAILED(name, why) "-ERR CONFIG SET failed (possibly related to argument '" name "') - " why "\r\n"
    static const struct {
        const char *ask, *reply;
    } rows[] = {
        {"CONFIG SET foo bar", "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n"},
        {"CONFIG SET maxmemory 1 foo", "-ERR syntax error\r\n"},
        {"CONFIG SET maxmemory x", FAILED("maxmemory", "argument must be a memory value")},
        {"CONFIG SET maxmemory 1 maxmemory 2", FAILED("maxmemory", "duplicate parameter")},
        {"CONFIG SET maxmemory-clients 9223372036854775808",
         FAILED("maxmemory-clients", "percentage argument must be less or equal to 100")},
        {"CONFIG SET maxmemory-clients 99999999999999999999", "+OK\r\n"}, /* -1, which is 1% */
        {"CONFIG SET proto-max-bulk-len 1",
         FAILED("proto-max-bulk-len", "argument must be between 1048576 and 9223372036854775807 inclusive")},
        {"CONFIG SET timeout -1", FAILED("timeout", "argument must be between 0 and 2147483647 inclusive")},
        {"CONFIG SET timeout x", FAILED("timeout", "argument couldn't be parsed into an integer")},
        {"CONFIG SET databases 3", FAILED("databases", "can't set immutable config")},
        {"CONFIG SET dir /tmp", FAILED("dir", "can't set protected config")},
        {"CONFIG SET activerehashing x", FAILED("activerehashing", "argument must be 'yes' or 'no'")},
        {"CONFIG SET appendfsync x",
         FAILED("appendfsync", "argument(s) must be one of the following: everysec, always, no")},
        {"CONFIG SET appendonly no", FAILED("appendonly", "the log is the database: it cannot be switched off")},
        {"CONFIG SET notify-keyspace-events Q",
         FAILED("notify-keyspace-events", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")},
        {"CONFIG SET save 1", FAILED("save", "Invalid save parameters")},
        {"CONFIG SET latency-tracking-info-percentiles 100.1",
         FAILED("latency-tracking-info-percentiles",
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]")},
        {"CONFIG SET latency-tracking-info-percentiles nan",
         FAILED("latency-tracking-info-percentiles", "Invalid latency-tracking-info-percentiles parameters")},
        {"CONFIG SET oom-score-adj-values 1", FAILED("oom-score-adj-values", "wrong number of arguments")},
        {"CONFIG SET proc-title-template {foo}",
         FAILED("proc-title-template", "template format is invalid or contains unknown variables")},
        {"CONFIG SET proc-title-template {title",
         FAILED("proc-title-template", "template format is invalid or contains unknown variables")},
        {"CONFIG SET shutdown-on-sigint now,",
         FAILED("shutdown-on-sigint", "argument(s) must be one of the following: default, save, nosave, now, force")},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        world_ask(&w, rows[i].ask, rows[i].reply);
    world_put(&w, "CONFIG SET client-output-buffer-limit", BYTES("normal 1"),
              FAILED("client-output-buffer-limit", "Wrong number of arguments in buffer limit configuration."));
    world_put(&w, "CONFIG SET client-output-buffer-limit", BYTES("x 1 1 1"),
              FAILED("client-output-buffer-limit", "Invalid client class specified in buffer limit configuration."));
}

/* Method: of two, the second is wrong: the first is not set either (G1). */
static void test_config_set_is_all_or_nothing(void **state)
{
    (void)state;
    world_ask(&w, "CONFIG SET maxmemory 1gb timeout x",
              FAILED("timeout", "argument couldn't be parsed into an integer"));
    assert_int_equal(w.engine->settings->memory_max, 0);
    world_ask(&w, "CONFIG SET maxmemory 1gb timeout 7", "+OK\r\n");
    assert_int_equal(w.engine->settings->memory_max, 1u << 30);
    assert_int_equal(w.engine->settings->timeout_s, 7);
    world_ask(&w, "CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$10\r\n1073741824\r\n");
}

static void drop_line(void *arg, int level, const char *line, size_t len)
{
    (void)arg, (void)level, (void)line, (void)len;
}

static void test_loglevel_is_heeded(void **state)
{
    struct log *log = log_create_sink(drop_line, NULL, LOG_NOTICE, "test"), *before = w.engine->log;

    (void)state;
    w.engine->log = log;
    world_ask(&w, "CONFIG SET loglevel debug", "+OK\r\n");
    assert_int_equal(log_level(log), LOG_DEBUG);
    world_ask(&w, "CONFIG SET loglevel warning", "+OK\r\n");
    assert_int_equal(log_level(log), LOG_WARN);
    world_ask(&w, "CONFIG SET timeout 0", "+OK\r\n");
    assert_int_equal(log_level(log), LOG_WARN);
    world_ask(&w, "CONFIG SET loglevel notice", "+OK\r\n");
    w.engine->log = before;
    log_destroy(&log);
}

static void test_config_set_is_heeded(void **state)
{
    const struct settings *settings = w.engine->settings;

    (void)state;
    world_ask(&w, "CONFIG SET hz 0", "+OK\r\n");
    world_ask(&w, "CONFIG GET hz", "*2\r\n$2\r\nhz\r\n$1\r\n1\r\n");
    world_ask(&w, "CONFIG SET notify-keyspace-events gxAKm", "+OK\r\n");
    assert_int_equal(settings->notify, NOTIFY_ALL | NOTIFY_KEYSPACE | NOTIFY_KEY_MISS);
    world_ask(&w, "CONFIG GET notify-keyspace-events", "*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nAKm\r\n");
    world_put(&w, "CONFIG SET client-output-buffer-limit", BYTES("pubsub 2mb 1k 5"), "+OK\r\n");
    assert_int_equal(settings->output_limits[OUTPUT_LIMIT_PUBSUB].hard, 2u << 20);
    assert_int_equal(settings->output_limits[OUTPUT_LIMIT_PUBSUB].soft, 1000);
    assert_int_equal(settings->output_limits[OUTPUT_LIMIT_PUBSUB].soft_seconds, 5);
    assert_int_equal(settings->output_limits[OUTPUT_LIMIT_REPLICA].hard, 256u << 20);
    world_ask(&w, "CONFIG SET appendfsync ALWAYS", "+OK\r\n");
    assert_int_equal(settings->fsync, STORE_FSYNC_ALWAYS);
    world_ask(&w, "CONFIG SET requirepass secret", "+OK\r\n");
    assert_true(settings_password_fits(settings, BYTES("secret")));
    assert_false(settings_password_fits(settings, BYTES("secre")));
    assert_false(settings_password_fits(settings, BYTES("secretsecret")));
    assert_false(settings_password_fits(settings, BYTES("")));
    w.engine->settings->needs_password = true;
    world_put(&w, "CONFIG SET requirepass", BYTES(""),
              FAILED("requirepass", "others reach this port: without a password only with insecure: true in the configuration"));
    assert_true(settings_password_fits(settings, BYTES("secret")));
    w.engine->settings->needs_password = false;
    world_put(&w, "CONFIG SET requirepass", BYTES(""), "+OK\r\n");
    assert_null(settings->password);
    assert_false(settings_password_fits(settings, BYTES("")));
}

static void test_slow_log_keeps_the_last(void **state)
{
    struct bytes words[40];
    char text[200];

    (void)state;
    world_ask(&w, "SLOWLOG LEN", ":0\r\n");
    world_ask(&w, "SLOWLOG GET -2", "-ERR count should be greater than or equal to -1\r\n");
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        words[i] = bytes_of(text, sizeof(text));
    slow_log_note(w.engine, &w.session, words, 1, 9999);
    world_ask(&w, "SLOWLOG LEN", ":0\r\n");
    slow_log_note(w.engine, &w.session, words, ARRAY_COUNT(words), 10000);
    world_ask(&w, "SLOWLOG LEN", ":1\r\n");
    send_words("SLOWLOG GET");
    assert_true(says("... (72 more bytes)\r\n"));
    assert_true(says("... (9 more arguments)\r\n"));
    assert_true(says("\r\n:10000\r\n*32\r\n"));
    world_ask(&w, "CONFIG SET slowlog-max-len 2", "+OK\r\n");
    for (int i = 0; i < 5; i++)
        slow_log_note(w.engine, &w.session, words, 1, 20000);
    world_ask(&w, "SLOWLOG LEN", ":2\r\n");
    send_words("SLOWLOG GET 1");
    assert_true(says("*1\r\n*6\r\n:5\r\n"));
    world_ask(&w, "SLOWLOG RESET", "+OK\r\n");
    world_ask(&w, "SLOWLOG GET -1", "*0\r\n");
}

static void test_latency_keeps_spikes(void **state)
{
    (void)state;
    latency_note(w.engine, "command", 500);
    world_ask(&w, "LATENCY LATEST", "*0\r\n");
    send_words("LATENCY DOCTOR");
    assert_true(says("I'm sorry, Dave, I can't do that."));
    world_ask(&w, "CONFIG SET latency-monitor-threshold 100", "+OK\r\n");
    latency_note(w.engine, "command", 99);
    latency_note(w.engine, "command", 300);
    latency_note(w.engine, "command", 200); /* in the same second: the greatest counts */
    sim_run_for(w.sim, 3000000);
    world_ask(&w, "LATENCY HISTORY nothing", "*0\r\n");
    latency_note(w.engine, "command", 150);
    send_words("LATENCY HISTORY command");
    assert_true(says("*2\r\n*2\r\n:"));
    assert_true(says("\r\n:300\r\n"));
    assert_true(says("\r\n:150\r\n"));
    send_words("LATENCY LATEST");
    assert_true(says(":150\r\n:300\r\n"));
    send_words("LATENCY GRAPH command");
    assert_true(says("command - high 300 ms, low 150 ms (all time high 300 ms)\n"));
    send_words("LATENCY DOCTOR");
    assert_true(says("1. command: 2 latency spikes (average 225ms, mean deviation 75ms"));
    world_ask(&w, "LATENCY GRAPH none", "-ERR No samples available for event 'none'\r\n");
    world_ask(&w, "LATENCY RESET none", ":0\r\n");
    world_ask(&w, "LATENCY RESET", ":1\r\n");
}

static void test_latency_histogram(void **state)
{
    const struct command *set = command_find(BYTES("set"));
    double p[3];

    (void)state;
    world_ask(&w, "CONFIG RESETSTAT", "+OK\r\n");
    assert_false(latency_percentiles(w.engine->latency, set->id, p));
    for (int i = 0; i < 99; i++)
        latency_command_note(w.engine, set, 3);
    latency_command_note(w.engine, set, 1000);
    world_ask(&w, "LATENCY HISTOGRAM set nothing",
              "*2\r\n$3\r\nset\r\n*4\r\n$5\r\ncalls\r\n:100\r\n$14\r\nhistogram_usec\r\n*4\r\n:4\r\n:99\r\n:1056\r\n:100\r\n");
    assert_true(latency_percentiles(w.engine->latency, set->id, p));
    assert_int_equal(p[0], 3);
    assert_int_equal(p[2], 1000);
}

/* What is counted begins at 0, but who waits still waits. */
static void test_resetstat(void **state)
{
    struct bytes words[WORLD_WORDS_MAX];
    struct session other;

    (void)state;
    session_init(&other, w.engine, w.session.io);
    other.resp = 2;
    other.is_authenticated = true;
    assert_int_equal(engine_execute(&other, words, world_words("BLPOP list 0", words)), CMD_PARKED);
    send_words("NOTHING");
    send_words("INFO errorstats");
    assert_true(says("errorstat_ERR:count=1\r\n"));
    world_ask(&w, "CONFIG RESETSTAT", "+OK\r\n");
    send_words("INFO errorstats");
    assert_false(says("errorstat_"));
    world_ask(&w, "CLIENT UNBLOCK 2 ERROR", ":1\r\n");
    assert_int_equal(engine_execute(&other, words, world_words("BLPOP list 0", words)), CMD_DONE);
    assert_int_equal(w.engine->blocked_count, 0);
    send_words("INFO errorstats");
    assert_true(says("errorstat_UNBLOCKED:count=1\r\n"));
    send_words("INFO commandstats");
    assert_true(says("cmdstat_blpop:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=1\r\n"));
    session_deinit(&other);
}

static void test_info_has_its_sections(void **state)
{
    static const char *const fields[] = {
        "redis_version:7.0.15\r\n", "# Clients\r\n", "used_memory:", "maxmemory_human:0B\r\n", "loading:0\r\n",
        "aof_enabled:1\r\n", "total_commands_processed:", "role:master\r\n", "connected_slaves:0\r\n",
        "used_cpu_user:", "cluster_enabled:0\r\n", "db0:keys=1,expires=1,avg_ttl=0\r\n", "errorstat_ERR:count=1\r\n"};

    (void)state;
    world_ask(&w, "SET k v EX 100", "+OK\r\n");
    send_words("nosuchcommand");
    send_words("INFO");
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        assert_true(says(fields[i]));
    assert_false(says("cmdstat_set"));
    send_words("INFO commandstats keyspace");
    assert_true(says("cmdstat_set:calls=1,"));
    assert_true(says("# Keyspace\r\n"));
    assert_false(says("# Server"));
    world_ask(&w, "INFO nothing", "$0\r\n\r\n");
}

static void test_memory(void **state)
{
    (void)state;
    world_ask(&w, "MEMORY USAGE k", "$-1\r\n");
    world_ask(&w, "SET k v", "+OK\r\n");
    world_ask(&w, "MEMORY USAGE k", ":30\r\n");
    world_ask(&w, "MEMORY USAGE k SAMPLES", "-ERR syntax error\r\n");
    world_ask(&w, "MEMORY USAGE k SAMPLES -1", "-ERR syntax error\r\n");
    world_ask(&w, "MEMORY USAGE k SAMPLES 0", ":30\r\n");
    world_ask(&w, "MEMORY PURGE", "+OK\r\n");
    send_words("MEMORY STATS");
    assert_true(says("keys.count\r\n:1\r\n"));
    send_words("MEMORY DOCTOR");
    assert_true(says("Hi Sam, this instance is empty"));
}

static void test_debug(void **state)
{
    (void)state;
    world_ask(&w, "DEBUG SLEEP 0", "+OK\r\n");
    world_ask(&w, "DEBUG JMAP",
              "-ERR unknown subcommand or wrong number of arguments for 'JMAP'. Try DEBUG HELP.\r\n");
    world_ask(&w, "DEBUG OBJECT k", "-ERR no such key\r\n");
    world_ask(&w, "DEBUG POPULATE 10 pre 5", "+OK\r\n");
    world_ask(&w, "DBSIZE", ":10\r\n");
    world_ask(&w, "GET pre:3", "$5\r\nvalue\r\n");
    send_words("DEBUG OBJECT pre:3");
    assert_true(says("encoding:embstr serializedlength:5"));
    world_ask(&w, "DEBUG ERROR ERR-MY", "-ERR-MY\r\n");
    world_ask(&w, "DEBUG SET-ACTIVE-EXPIRE 0", "+OK\r\n");
    world_ask(&w, "DEBUG PROTOCOL set", "*3\r\n:0\r\n:1\r\n:2\r\n");
}

static void test_others(void **state)
{
    (void)state;
    world_ask(&w, "ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    world_ask(&w, "SAVE", "+OK\r\n");
    world_ask(&w, "BGSAVE", "+Background saving started\r\n");
    world_ask(&w, "BGSAVE foo", "-ERR syntax error\r\n");
    world_ask(&w, "BGREWRITEAOF", "+Background append only file rewriting started\r\n");
    world_ask(&w, "MULTI", "+OK\r\n");
    world_ask(&w, "BGSAVE", "+QUEUED\r\n");
    world_ask(&w, "BGREWRITEAOF", "+QUEUED\r\n");
    world_ask(&w, "EXEC",
              "*2\r\n+Background saving scheduled\r\n+Background append only file rewriting scheduled\r\n");
    world_ask(&w, "CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n");
    world_ask(&w, "READONLY", "-ERR This instance has cluster support disabled\r\n");
    world_ask(&w, "SHUTDOWN foo", "-ERR syntax error\r\n");
    world_ask(&w, "SHUTDOWN SAVE NOSAVE", "-ERR syntax error\r\n");
    world_ask(&w, "SHUTDOWN ABORT", "-ERR No shutdown in progress.\r\n");
    world_ask(&w, "LOLWUT VERSION x", "-ERR value is not an integer or out of range\r\n");
    send_words("LOLWUT");
    assert_true(says("Redis ver. 7.0.15\n"));
    send_words("CONFIG HELP");
    assert_true(says("*11\r\n+CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n"));
    world_ask(&w, "CONFIG REWRITE", "-ERR The server is running without a config file\r\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_config_get_shows_names_once),
        TEST(test_config_set_checks_values),
        TEST(test_config_set_is_all_or_nothing),
        TEST(test_loglevel_is_heeded),
        TEST(test_config_set_is_heeded),
        TEST(test_slow_log_keeps_the_last),
        TEST(test_latency_keeps_spikes),
        TEST(test_latency_histogram),
        TEST(test_resetstat),
        TEST(test_info_has_its_sections),
        TEST(test_memory),
        TEST(test_debug),
        TEST(test_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
