/* SPDX-License-Identifier: Apache-2.0 */
/* The node's settings: files, options on top of them, and what is said of wrong ones. */
#include "tests/unit/test.h"

#include "backend/conf.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char example[1024];
static char *example_text;

static void refuses(const char *yaml, const char *why)
{
    char path[] = "/tmp/weir-conf-XXXXXX";
    struct node_conf *conf = NULL;
    struct conf_error error;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, yaml, strlen(yaml)), strlen(yaml));
    close(fd);
    assert_true(node_conf_read(path, NULL, 0, &conf, &error) < 0);
    unlink(path);
    assert_null(conf);
    if (strncmp(error.text, path, strlen(path)) != 0 || strstr(error.text, why) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.text, why);
}

static void test_wrong_files_are_refused_with_their_place(void **state)
{
    (void)state;
    refuses("", "0 documents; write version: 1");
    refuses("fsync: no\n", ":1:1: conf: directive \"version\" is missing");
    refuses("version: 2\n", ":1:10: conf: directive \"version\" has an invalid value");
    refuses("version: 1\nfsyn: no\n", ":2:1: conf: directive \"fsyn\" is unknown; did you mean \"fsync\"?");
    refuses("version: 1\nfsync: sometimes\n", ":2:8: conf: directive \"fsync\" has an invalid value");
    refuses("version: 1\nmemory: 1x\n", ":2:9: ");
    refuses("version: 1\nmemory: 1g\nmemory: 2g\n", ":3:1: conf: directive \"memory\" is a duplicate");
    refuses("version: 1\nnamespaces: {16: {kind: cache}}\n", "no database \"16\"");
    refuses("version: 1\nnamespaces: {1: {kind: heap}}\n", "invalid kind \"heap\"");
    refuses("version: 1\nnamespaces: {1: cache}\n", "write {kind: cache}");
    refuses("version: 1\nlisten: 127.0.0.1:65535\nworkers: 2\n", "above 65535");
    refuses("version: 1\nlisten: 127.0.0.1:7000\nstats: 127.0.0.1:7000\n", "another port");
    refuses("version: 1\nlisten: /run/x\n", ":2:9: conf: directive \"listen\" has an invalid value; a node listens on "
                                             "host:port, not on a path: write 127.0.0.1:7000");
    refuses("version: 1\nlisten: 127.0.0.1\n", ":2:9: conf: directive \"listen\" has an invalid value; a node listens on "
                                               "host:port, not on a path: write 127.0.0.1:7000");
    refuses("version: 1\nstats: off\n", ":2:8: conf: directive \"stats\" has an invalid value; a node listens on host:port");
    refuses("version: 1\nsegment_size: 1500000\n",
            ":2:15: conf: directive \"segment_size\" has an invalid value; it takes a multiple of 4096 bytes");
    refuses("version: 1\nring_size: 5000001\n",
            ":2:12: conf: directive \"ring_size\" has an invalid value; it takes a multiple of 4096 bytes");
    refuses("version: 1\nrlimit_nofile: 1\n",
            ":2:16: conf: directive \"rlimit_nofile\" has an invalid value; it takes 0, or 256 to 1073741824");
    refuses("version: 1\nnamespaces: {1: {kind: cache}, 1: {kind: store}}\n",
            ":2:42: conf: directive \"namespaces\" has database 1 twice");
    refuses("version: 1\nnamespaces: {1: {kind: cache}, 01: {kind: cache}}\n", "has database 1 twice");
    refuses("version: 1\nnamespaces: 1=cache,1=store\n", ":2:13: conf: directive \"namespaces\" has database 1 twice");
    refuses("version: 1\ngroup: weir\n", "only valid with a user");
}

static void test_options_go_first(void **state)
{
    const struct conf_option options[] = {
        {"memory", "2gb"}, {"clients-max", "7"}, {"namespaces", "1=cache,2=store"}, {"fsync", "always"}};
    const struct conf_option wrong = {"memory", "much"};
    struct node_conf *conf = NULL;
    struct conf_error error;

    (void)state;
    assert_int_equal(node_conf_read(example, options, ARRAY_COUNT(options), &conf, &error), 0);
    assert_int_equal(conf->memory, 2ull << 30);
    assert_int_equal(conf->clients_max, 7);
    assert_int_equal(conf->fsync, STORE_FSYNC_ALWAYS);
    assert_true(conf->namespaces[1].is_cache);
    assert_false(conf->namespaces[2].is_cache);
    node_conf_destroy(&conf);
    assert_null(conf);
    assert_int_equal(node_conf_read(NULL, &wrong, 1, &conf, &error), ERR_INVALID);
    assert_string_equal(error.text, "command line:1:1: conf: directive \"memory\" is not a number; write bytes (65536) "
                                    "or a size with its unit (64k, 16m, 1g)");
}

static void test_the_example_shows_the_defaults(void **state)
{
    struct node_conf *file = NULL, *plain = NULL;
    struct conf_error error;

    (void)state;
    assert_int_equal(node_conf_read(example, NULL, 0, &file, &error), 0);
    assert_int_equal(node_conf_read(NULL, NULL, 0, &plain, &error), 0);
    assert_int_equal(file->warnings_count, 0);
    assert_string_equal(file->listen.text, plain->listen.text);
    assert_string_equal(file->stats.text, plain->stats.text);
    assert_string_equal(file->dir, plain->dir);
    assert_int_equal(file->workers, plain->workers);
    assert_int_equal(file->memory, plain->memory);
    assert_int_equal(file->disk, plain->disk);
    assert_int_equal(file->fsync, plain->fsync);
    assert_int_equal(file->clients_max, plain->clients_max);
    assert_int_equal(file->segment_size, plain->segment_size);
    assert_int_equal(file->ring_size, plain->ring_size);
    assert_int_equal(file->direct, plain->direct);
    assert_int_equal(file->drain_timeout_ms, plain->drain_timeout_ms);
    assert_int_equal(file->rlimit_nofile, plain->rlimit_nofile);
    assert_int_equal(file->sandbox, plain->sandbox);
    node_conf_destroy(&file);
    node_conf_destroy(&plain);
}

static void is_in_example(const char *key, const char *value, const char *what)
{
    char line[128];

    (void)what;
    snprintf(line, sizeof(line), value[0] != '\0' ? "\n%s: %s\n" : "\n#%s: ", key, value);
    if (strstr(example_text, line) == NULL)
        fail_msg("conf/backend.yml has no line \"%s\"", line + 1);
}

static void test_the_example_shows_every_key(void **state)
{
    FILE *file = fopen(example, "re");
    size_t len;

    (void)state;
    assert_non_null(file);
    example_text = must_zalloc(1 << 16);
    len = fread(example_text, 1, (1 << 16) - 1, file);
    assert_true(len > 0);
    fclose(file);
    node_conf_print_keys(is_in_example);
    mem_free(example_text);
}

/* A password that other users of the machine can read is told. */
static void test_warnings(void **state)
{
    char path[] = "/tmp/weir-conf-XXXXXX";
    const char yaml[] = "version: 1\npassword: secret\n";
    struct node_conf *conf = NULL;
    struct conf_error error;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, yaml, strlen(yaml)), strlen(yaml));
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(node_conf_read(path, NULL, 0, &conf, &error), 0);
    assert_int_equal(conf->warnings_count, 1);
    assert_non_null(strstr(conf->warnings[0].text, "chmod 600"));
    node_conf_destroy(&conf);
    close(fd);
    unlink(path);
}

static void open_to_others(const char *key, const char *more, const char *value, const char *why)
{
    const struct conf_option options[] = {{key, "0.0.0.0:7000"}, {more, value}};
    struct node_conf *conf = NULL;
    struct conf_error error;
    int err = node_conf_read(NULL, options, more != NULL ? 2 : 1, &conf, &error);

    if (why == NULL) {
        assert_int_equal(err, 0);
        assert_int_equal(conf->warnings_count, 0);
    } else {
        assert_true(err < 0);
        assert_non_null(strstr(error.text, why));
    }
    node_conf_destroy(&conf);
}

static void test_what_others_reach_has_a_password_or_is_said_aloud(void **state)
{
    (void)state;
    open_to_others("listen", NULL, NULL, "set password, use 127.0.0.1, or add insecure: true");
    open_to_others("listen", "password", "secret", NULL);
    open_to_others("listen", "insecure", "true", NULL);
    open_to_others("listen", "insecure", "false", "set password");
    open_to_others("stats", "listen", "127.0.0.1:7100", "\"stats\" has an invalid value");
    open_to_others("stats", "password", "secret", "\"stats\" has an invalid value");
    open_to_others("stats", "insecure", "true", NULL);
}

int main(void)
{
    const char *srcdir = getenv("srcdir"); /* automake's driver sets it */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_files_are_refused_with_their_place),
        cmocka_unit_test(test_options_go_first),
        cmocka_unit_test(test_the_example_shows_the_defaults),
        cmocka_unit_test(test_the_example_shows_every_key),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_what_others_reach_has_a_password_or_is_said_aloud),
    };

    snprintf(example, sizeof(example), "%s/conf/backend.yml", srcdir != NULL ? srcdir : ".");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
