/* SPDX-License-Identifier: Apache-2.0 */
/* Reading from disk, and the example files of conf/: each loads, without a warning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/conf.h"

static void source_path(char *out, size_t cap, const char *name)
{
    const char *srcdir = getenv("srcdir"); /* automake's driver sets it */

    snprintf(out, cap, "%s/conf/%s", srcdir != NULL ? srcdir : ".", name);
}

static void test_every_example_loads(void **state)
{
    char path[1024];
    unsigned count = 0;
    struct dirent *entry;
    DIR *dir;

    (void)state;
    source_path(path, sizeof(path), "");
    dir = opendir(path);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        struct conf *conf = NULL;
        struct conf_error error;
        size_t len = strlen(entry->d_name);

        if (len < 5 || strcmp(entry->d_name + len - 4, ".yml") != 0 || entry->d_name[0] == '.' ||
            strcmp(entry->d_name, "backend.yml") == 0) /* another program's */
            continue;
        source_path(path, sizeof(path), entry->d_name);
        if (conf_load(path, &conf, &error) != 0)
            fail_msg("%s", error.text);
        if (conf->warnings_count > 0 && strstr(conf->warnings[0].text, "chmod") == NULL)
            fail_msg("%s", conf->warnings[0].text);
        conf_destroy(&conf);
        count++;
    }
    closedir(dir);
    assert_true(count >= 6);
}

struct text {
    char data[1 << 16];
    size_t len;
};

static void collect(void *arg, const char *data, size_t len)
{
    struct text *text = arg;

    assert_true(text->len + len < sizeof(text->data));
    memcpy(text->data + text->len, data, len);
    text->len += len;
    text->data[text->len] = '\0';
}

/* The value printed for a key of a description, "" when it is not there. */
static const char *described(const struct text *text, const char *key, char value[static 64])
{
    char needle[80];
    const char *at;

    snprintf(needle, sizeof(needle), " %s: ", key);
    at = strstr(text->data, needle);
    value[0] = '\0';
    if (at != NULL)
        sscanf(at + strlen(needle), "%63[^\n]", value);
    return value;
}

/* conf/weir.yml promises "every option with its default". Its values are the defaults: a pool with
 * nothing but listen and servers comes out the same. */
static void test_the_complete_example_shows_the_defaults(void **state)
{
    static const char *const keys[] = {
        "workers",
        "accept",
        "cpu_affinity",
        "drain_timeout",
        "threshold",
        "sample",
        "size",
        "request_size_max",
        "value_size_max",
        "key_size_max",
        "args_max",
        "line_max",
        "client_output_max",
        "client_output_close",
        "client_inflight_max",
        "upstream_queue_max",
        "upstream_output_max",
        "worker_memory_max",
        "clients_max",
        "auth_timeout",
        "idle_timeout",
        "members",
        "redis_db",
        "hash",
        "distribution",
        "timeout",
        "connect_timeout",
        "queue_timeout",
        "reply_timeout",
        "backlog",
        "client_connections",
        "tcpkeepalive",
        "reuseport",
        "preconnect",
        "server_connections",
        "auto_eject_hosts",
        "server_retry_timeout",
        "server_failure_limit",
        "eject",
        "probe_interval",
        "paranoid",
        "insecure",
    };
    static struct text shown, bare;
    struct conf *conf = NULL;
    struct conf_error error;
    char path[1024], a[64], b[64];

    (void)state;
    source_path(path, sizeof(path), "weir.yml");
    if (conf_load(path, &conf, &error) != 0)
        fail_msg("%s", error.text);
    conf_describe(conf, collect, &shown);
    conf_destroy(&conf);
    assert_int_equal(
        conf_parse("bare", BYTES("p: {listen: '127.0.0.1:1', servers: ['h:1:1']}"), &conf, &error),
        0);
    conf_describe(conf, collect, &bare);
    conf_destroy(&conf);
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        described(&bare, keys[i], b);
        if (b[0] == '\0' || strcmp(described(&shown, keys[i], a), b) != 0)
            fail_msg("%s is %s in conf/weir.yml, %s by default", keys[i], a, b);
    }
}

/* The keys that the error for an unknown one lists must all be in conf/weir.yml, commented out or
 * not: whoever adds a key documents it. */
static void assert_keys_shown(const char *yaml, const char *shown)
{
    struct conf *conf = NULL;
    struct conf_error error;
    char *rest, *key;

    assert_int_equal(conf_parse("x", bytes_of_string(yaml), &conf, &error), ERR_INVALID);
    rest = strstr(error.text, "known are ");
    assert_non_null(rest);
    rest += strlen("known are ");
    while ((key = strsep(&rest, ",")) != NULL) {
        char needle[80];

        key += key[0] == ' ';
        if (strcmp(key, "tls") == 0 || strcmp(key, "users") == 0 || strcmp(key, "sentinels") == 0)
            continue; /* not supported yet */
        snprintf(needle, sizeof(needle), "%s: ", key);
        if (strstr(shown, needle) == NULL) {
            snprintf(needle, sizeof(needle), "  %s:\n", key);
            if (strstr(shown, needle) == NULL)
                fail_msg("conf/weir.yml does not show %s", key);
        }
    }
}

static void test_the_complete_example_shows_every_key(void **state)
{
    static struct text shown;
    char path[1024];
    FILE *file;

    (void)state;
    source_path(path, sizeof(path), "weir.yml");
    file = fopen(path, "r");
    assert_non_null(file);
    shown.len = fread(shown.data, 1, sizeof(shown.data) - 1, file);
    fclose(file);
    assert_keys_shown("p: {xxxxxxxxxx: 1}", shown.data);
    assert_keys_shown("p: {commands: {xxxxxxxxxx: 1}}", shown.data);
    assert_keys_shown("weir: {xxxxxxxxxx: 1}", shown.data);
    assert_keys_shown("weir: {log: {xxxxxxxxxx: 1}}", shown.data);
    assert_keys_shown("weir: {stats: {xxxxxxxxxx: 1}}", shown.data);
    assert_keys_shown("weir: {slowlog: {xxxxxxxxxx: 1}}", shown.data);
    assert_keys_shown("weir: {hotkeys: {xxxxxxxxxx: 1}}", shown.data);
    assert_keys_shown("weir: {bigkeys: {xxxxxxxxxx: 1}}", shown.data);
    assert_keys_shown("weir: {limits: {xxxxxxxxxx: 1}}", shown.data);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_files_that_cannot_be_read(void **state)
{
    struct conf *conf = NULL;
    struct conf_error error;

    (void)state;
    assert_int_equal(conf_load("/nonexistent/x.yml", &conf, &error), -ENOENT);
    assert_non_null(strstr(error.text, "conf: failed to open configuration '/nonexistent/x.yml'"));
    assert_int_equal(conf_load("/", &conf, &error), -EISDIR);
    assert_int_equal(conf_load("/dev/null", &conf, &error), ERR_INVALID);
    assert_non_null(strstr(error.text, "found 0 documents"));
    assert_int_equal(conf_load("/dev/zero", &conf, &error), ERR_INVALID);
    assert_non_null(strstr(error.text, "more than 4194304 bytes"));
    assert_null(conf);
}

static void test_a_password_others_can_read_is_warned_of(void **state)
{
    static const char yaml[] =
        "p: {listen: 127.0.0.1:1, redis: true, redis_auth: x, servers: [h:1:1]}";
    char path[] = "test_conf_XXXXXX";
    struct conf *conf = NULL;
    struct conf_error error;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    write_file(path, yaml, 0644);
    assert_int_equal(conf_load(path, &conf, &error), 0);
    assert_int_equal(conf->warnings_count, 1);
    assert_non_null(strstr(conf->warnings[0].text, "(mode 0644); chmod 600"));
    conf_destroy(&conf);
    write_file(path, yaml, 0600);
    assert_int_equal(conf_load(path, &conf, &error), 0);
    assert_int_equal(conf->warnings_count, 0);
    conf_destroy(&conf);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_example_loads),
        cmocka_unit_test(test_the_complete_example_shows_the_defaults),
        cmocka_unit_test(test_the_complete_example_shows_every_key),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_a_password_others_can_read_is_warned_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
