/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/buffer.h"
#include "proxy/conf_live.h"
#include "proxy/where.h"

#include <stdio.h>

static struct conf *load(void)
{
    static const char text[] = "alpha:\n  listen: 127.0.0.1:1\n  redis: true\n  timeout: 400\n  hash_tag: \"{}\"\n"
                               "  servers:\n  - 10.0.0.1:6379:1 one\n  - 10.0.0.2:6379:1 two\n"
                               "a.b:\n  listen: 127.0.0.1:2\n  servers:\n  - 10.0.0.3:11211:1\n";
    struct conf_error error;
    struct conf *conf = NULL;

    assert_int_equal(conf_parse("test", bytes_of_string(text), &conf, &error), 0);
    return conf;
}

static void print(void *arg, const char *text, size_t len)
{
    buffer_append(arg, text, len);
}

static char *listed(const struct conf *conf, struct buffer *out)
{
    conf_live_list(conf, print, out);
    buffer_append(out, "", 1);
    return out->data;
}

static void test_values_change_and_say_from_what(void **state)
{
    struct conf *conf = load();
    struct conf_live_change change;
    struct conf_error error;

    (void)state;
    assert_int_equal(conf_live_set(conf, BYTES("slowlog.threshold 2s"), &change, &error), 0);
    assert_int_equal(conf->process.slowlog_threshold_ms, 2000);
    assert_string_equal(change.key, "slowlog.threshold");
    assert_string_equal(change.from, "10ms");
    assert_string_equal(change.to, "2000ms");
    assert_int_equal(conf_live_set(conf, BYTES("slowlog.threshold off"), &change, &error), 0);
    assert_int_equal(conf->process.slowlog_threshold_ms, -1);
    assert_string_equal(change.to, "off");
    assert_int_equal(conf_live_set(conf, BYTES("bigkeys.size 1m"), NULL, &error), 0);
    assert_int_equal(conf->process.bigkeys_size, 1u << 20);
    assert_int_equal(conf_live_set(conf, BYTES("pool.alpha.server_failure_limit 7"), NULL, &error), 0);
    assert_int_equal(conf_pool_by_name(conf, BYTES("alpha"))->server_failure_limit, 7);
    conf_destroy(&conf);
}

/* A pool's name may have dots. `timeout` is what the others are without a word of their own. */
static void test_pools(void **state)
{
    struct conf *conf = load();
    const struct conf_pool *alpha = conf_pool_by_name(conf, BYTES("alpha"));
    const struct conf_pool *dotted = conf_pool_by_name(conf, BYTES("a.b"));
    struct conf_error error;

    (void)state;
    assert_int_equal(conf_live_set(conf, BYTES("pool.a.b.timeout 100"), NULL, &error), 0);
    assert_int_equal(dotted->timeout_ms, 100);
    assert_int_equal(dotted->reply_timeout_ms, 100);
    assert_int_equal(dotted->queue_timeout_ms, 100);
    assert_int_equal(dotted->connect_timeout_ms, 100);
    assert_int_equal(alpha->timeout_ms, 400);
    assert_int_equal(conf_live_set(conf, BYTES("pool.*.timeout off"), NULL, &error), 0);
    assert_int_equal(alpha->reply_timeout_ms, -1);
    assert_int_equal(alpha->connect_timeout_ms, 400); /* has no "off" */
    assert_int_equal(dotted->timeout_ms, -1);
    conf_destroy(&conf);
}

static void test_what_is_wrong_changes_nothing(void **state)
{
    static const struct { const char *text; int err; const char *said; } cases[] = {
        {"", ERR_INVALID, "no key and value"},
        {"slowlog.threshold", ERR_INVALID, "no key and value"},
        {"slowlog.threshold ", ERR_INVALID, "no key and value"},
        {" 3", ERR_INVALID, "no key and value"},
        {"workers 3", ERR_NOT_FOUND, "cannot be set"},
        {"pool.alpha.hash md5", ERR_NOT_FOUND, "cannot be set"},
        {"pool.alpha 3", ERR_NOT_FOUND, "cannot be set"},
        {"pool. 3", ERR_NOT_FOUND, "cannot be set"},
        {"pool.gamma.timeout 3", ERR_NOT_FOUND, "is no pool"},
        {"pool.alpha.timeout -5", ERR_INVALID, "not a number"},
        {"pool.alpha.timeout 0", ERR_INVALID, "it takes"},
        {"pool.alpha.timeout 3 4", ERR_INVALID, "not a number"},
        {"pool.*.timeout never", ERR_INVALID, "not a number"},
        {"hotkeys.sample 0", ERR_INVALID, "it takes"},
        {"bigkeys.size 99999999999999999999", ERR_INVALID, ""},
    };
    struct conf *conf = load();
    struct buffer before = {0}, after = {0};
    struct conf_error error;
    char longest[2000];

    (void)state;
    listed(conf, &before);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(conf_live_set(conf, bytes_of_string(cases[i].text), NULL, &error), cases[i].err);
        assert_non_null(strstr(error.text, cases[i].said));
    }
    memset(longest, 'k', sizeof(longest));
    longest[1000] = ' ';
    assert_int_equal(conf_live_set(conf, bytes_of(longest, sizeof(longest)), NULL, &error), ERR_NOT_FOUND);
    assert_string_equal(listed(conf, &after), before.data);
    buffer_deinit(&before);
    buffer_deinit(&after);
    conf_destroy(&conf);
}

/* Every line of the list can be given back as it is. */
static void test_the_list_is_what_set_takes(void **state)
{
    struct conf *conf = load();
    struct buffer list = {0}, again = {0};
    struct conf_error error;
    uint32_t count = 0;

    (void)state;
    for (char *line = listed(conf, &list), *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        if (strstr(line, ".timeout ") == NULL || strstr(line, ".timeout ") > end) /* it changes others */
            assert_int_equal(conf_live_set(conf, bytes_of(line, (size_t)(end - line)), NULL, &error), 0);
        count++;
    }
    assert_true(count > 20);
    assert_string_equal(listed(conf, &again), list.data);
    buffer_deinit(&list);
    buffer_deinit(&again);
    conf_destroy(&conf);
}

static bool is_ejected(void *arg, uint32_t pool, uint32_t server)
{
    (void)pool;
    return server == *(uint32_t *)arg;
}

static void test_where_names_server_and_reason(void **state)
{
    struct conf *conf = load();
    uint32_t ejected = 0;
    struct where where = {.conf = conf, .pool = "alpha"};
    struct buffer out = {0};

    (void)state;
    assert_int_equal(where_print(&where, BYTES("x{tag}\n"), print, &out), 0);
    buffer_append(&out, "", 1);
    assert_non_null(strstr(out.data, "pool alpha (127.0.0.1:1, ketama)"));
    assert_non_null(strstr(out.data, "\"x{tag}\\x0a\""));
    assert_non_null(strstr(out.data, "\"tag\", its hash tag"));
    assert_non_null(strstr(out.data, "  address   10.0.0."));
    assert_null(strstr(out.data, "ejected"));
    ejected = strstr(out.data, "10.0.0.1:") != NULL ? 0 : 1;
    where.is_ejected = is_ejected;
    where.arg = &ejected;
    buffer_clear(&out);
    assert_int_equal(where_print(&where, BYTES("x{tag}\n"), print, &out), 0);
    buffer_append(&out, "", 1);
    assert_non_null(strstr(out.data, "it is ejected: the key gets errors"));
    where.pool = "gamma";
    assert_int_equal(where_print(&where, BYTES("k"), print, &out), ERR_NOT_FOUND);
    buffer_deinit(&out);
    conf_destroy(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_change_and_say_from_what),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_what_is_wrong_changes_nothing),
        cmocka_unit_test(test_the_list_is_what_set_takes),
        cmocka_unit_test(test_where_names_server_and_reason),
    };

    return cmocka_run_group_tests_name("conf_live", tests, NULL, NULL);
}
