/* SPDX-License-Identifier: Apache-2.0 */
/* What is refused, where the error points, and that it keeps twemproxy's words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/mem.h"
#include "proxy/conf.h"

#define P     "p:\n  listen: 127.0.0.1:1\n"
#define S     "  servers:\n  - 127.0.0.1:2:1\n"
#define REDIS "  redis: true\n"

/* Each text must start with "x.yml:" and the place; `says` must be in it. */
static const struct {
    const char *yaml, *place, *says;
} bad[] = {
    /* twemproxy's texts */
    {P S "  hsah: md5\n", "5:3", "conf: directive \"hsah\" is unknown; did you mean \"hash\"?"},
    {P S "  flavour: md5\n", "5:3", "conf: directive \"flavour\" is unknown; known are listen, "},
    {P S "  listen: 127.0.0.1:3\n", "5:3", "conf: directive \"listen\" is a duplicate"},
    {P S "  hash:\n", "5:8", "conf: directive \"hash\" has an invalid value"},
    {P S "  hash: [md5]\n", "5:9", "conf: directive \"hash\" has an invalid value"},
    {"p:\n  listen: 127.0.0.1\n" S, "2:11",
     "conf: directive \"listen\" has an invalid \"hostname:port\" format string"},
    {"p:\n  listen: 127.0.0.1:0\n" S, "2:11",
     "conf: directive \"listen\" has an invalid port in \"hostname:port\" format string"},
    {"p:\n  listen: 127.0.0.1:12345:1\n" S, "2:11", "\"127.0.0.1:12345\" is no IPv6 address, and no other host has a colon"},
    {"p:\n  listen: 127.0.0.1:65536\n" S, "2:11", "has an invalid port in \"hostname:port\""},
    {"p:\n  listen: 127.0.0.1:-1\n" S, "2:11", "has an invalid port in \"hostname:port\""},
    {"p:\n  listen: /tmp/s 0999\n" S, "2:11",
     "conf: directive \"listen\" has an invalid file permission in \"socket_path permission\" "
     "format string"},
    {"p:\n  listen: /tmp/s 1777\n" S, "2:11", "has an invalid file permission"},
    {P S "  timeout: soon\n", "5:12", "conf: directive \"timeout\" is not a number"},
    {P S "  backlog: -1\n", "5:12", "conf: directive \"backlog\" is not a number"},
    {P S "  backlog: 99999999999\n", "5:12", "conf: directive \"backlog\" is not a number"},
    {P S "  redis: yes\n", "5:10", "conf: directive \"redis\" is not \"true\" or \"false\""},
    {P S "  hash: sha1\n", "5:9",
     "conf: directive \"hash\" is not a valid hash; use one of one_at_"},
    {P S "  distribution: rendezvous\n", "5:17",
     "conf: directive \"distribution\" is not a valid distribution; use one of ketama"},
    {P S "  hash_tag: \"{\"\n", "5:13",
     "conf: directive \"hash_tag\" is not a valid hash tag string with two characters"},
    {P "  servers:\n  - 127.0.0.1:2\n", "4:5",
     "conf: directive \"servers\" has an invalid \"hostname:port:weight [name]\"or "
     "\"/path/unix_socket:weight [name]\" format string"},
    {P "  servers:\n  - /tmp/x\n", "4:5", "has an invalid \"hostname:port:weight [name]\"or"},
    {P "  servers:\n  - /tmp/x:y:1\n", "4:5", "has an invalid \"hostname:port:weight [name]\"or"},
    {P "  servers:\n  - h:2:x\n", "4:5",
     "conf: directive \"servers\" has an invalid weight in \"hostname:port:weight [name]\" format "
     "string"},
    {P "  servers:\n  - h:2:-1\n", "4:5", "has an invalid weight in"},
    {P "  servers:\n  - h:2:1e9\n", "4:5", "has an invalid weight in"},
    {P "  servers:\n  - h:2:1000000000\n", "4:5", "has an invalid weight in"},
    {P "  servers:\n  - h:2:0\n", "4:5",
     "conf: directive \"servers\" has a zero weight in \"hostname:port:weight [name]\" format"},
    {P "  servers:\n  - h:0:1\n", "4:5",
     "conf: directive \"servers\" has an invalid port in \"hostname:port:weight [name]\" format"},
    {P "  servers:\n  - h:65536:1\n", "4:5", "has an invalid port in"},
    {"p:\n" S, "1:1", "conf: directive \"listen:\" is missing"},
    {P, "1:1", "conf: pool 'p' has no servers"},
    {P "  servers: []\n", "3:3", "conf: pool 'p' has no servers"},
    {P "  servers:\n  - h:2:1 a\n  - h:3:1 a\n", "5:5",
     "conf: pool 'p' has servers with same name 'a'; the other is in line 4"},
    {P "  servers:\n  - h:2:1\n  - h:2:2\n", "5:5",
     "conf: pool 'p' has servers with same name 'h:2'"},
    {P S "q:\n  listen: 127.0.0.1:1\n" S, "6:11",
     "conf: pools 'p' and 'q' have the same listen address '127.0.0.1:1'"},
    {P S "p:\n  listen: 127.0.0.1:3\n" S, "5:1",
     "conf: 'x.yml' has pools with same name 'p'; the other is in line 1"},
    {"weir:\n  version: 1\n", "1:1", "conf: 'x.yml' has no pools"},
    {"{}\n", "1:1", "conf: 'x.yml' has no pools"},
    {P S "  server_connections: 0\n", "5:3", "conf: directive \"server_connections:\" cannot be 0"},
    {P S "  redis_auth: x\n", "5:3",
     "conf: directive \"redis_auth:\" is only valid for a redis pool"},
    {"", "1:1", "conf: 'x.yml' must contain only 1 document; found 0 documents"},
    {P S "---\n" P S, "5:1", "conf: 'x.yml' must contain only 1 document; found 2 documents"},

    /* YAML */
    {"p:\n\tlisten: h:1\n", "2:1", "indent with blanks, not with tabs"},
    {"p: [\n", "2:1", "conf: failed (err 4) to get the next yaml document"},
    {"p: {listen: h:1, servers: &a [h:1:1]}\n", "1:27", "conf: anchor token is disallowed"},
    {"a: &a {listen: h:1, servers: [h:1:1]}\nb: *a\n", "1:4", "conf: anchor token is disallowed"},
    {"b: *a\n", "1:4", "conf: alias token is disallowed"},
    {"p: !!map {listen: h:1}\n", "1:4", "conf: tag token is disallowed"},
    {"p: {listen: !x h:1}\n", "1:13", "conf: tag token is disallowed"},
    {"%YAML 1.1\n---\n" P S, "1:1", "conf: version directive token is disallowed"},
    {"%TAG ! tag:x,2000:\n---\n" P S, "1:1", "conf: tag directive token is disallowed"},
    {"- p\n", "1:1", "conf: 'x.yml' has invalid empty \"key:\" at depth 0"},
    {"p\n", "1:1", "conf: 'x.yml' has invalid empty \"key:\" at depth 0"},
    {"p:\n", "1:1", "conf: 'x.yml' has invalid \"key:value\" at depth 1; pool 'p' takes keys"},
    {"? [a]\n: b\n", "1:3", "has invalid empty \"key:\" at depth 1"},
    {"? \n: b\n", "1:2", "has invalid empty \"key:\" at depth 1"},
    {"p: {a: {b: {c: {d: {e: {f: 1}}}}}}\n", "1:24", "conf: 'x.yml' has a depth greater than 6"},
    {"[[[[[[[[[[[[[[[[[[", "1:7", "conf: 'x.yml' has a depth greater than 6"},
    {"\xef\xbb\xbf" P S, "1:1", "byte order mark"},
    {"\xff\xfep\0:\0", "1:1", "byte order mark"},
    {"p:\n  listen: h\xc0\x80:1\n", "2:12", "conf: failed (err 2)"},
    {"p:\n  listen: h\x01:1\n", "2:12", "conf: failed (err 2)"},
    {"\"p\\n\":\n  listen: h:1\n", "1:1", "control character (0x0a)"},
    {"\"p\\u2028\":\n  listen: h:1\n", "1:1", "control character (0xe2)"},

    /* Weir's own keys */
    {P S "  tls: true\n", "5:3", "conf: directive \"tls\" is not supported yet"},
    {P S "  users: [a]\n", "5:3", "conf: directive \"users\" is not supported yet"},
    {P S "  sentinels: [a]\n", "5:3", "write members: sentinel, sentinel_master: NAME"},
    {P S "  members: weir\n", "5:3", "weir is not supported yet"},
    {P S "  members: dynamic\n", "5:12", "\"dynamic\" is none of static, redis-cluster, sentinel"},
    {P S "  members: redis-cluster\n", "5:3", "is only valid for a redis pool"},
    {P S REDIS "  members: redis-cluster\n  distribution: ketama\n", "7:3", "places keys by slots"},
    {P S REDIS "  members: redis-cluster\n  redis_db: 1\n", "7:3", "database 0 only"},
    {P S REDIS "  members: redis-cluster\n  eject: rehash\n", "7:3", "use keep"},
    {P S REDIS "  members: sentinel\n", "6:3", "add sentinel_master: mymaster"},
    {P S REDIS "  sentinel_master: m\n", "6:3", "is only valid for a Sentinel pool"},
    {P S REDIS "  members: sentinel\n  sentinel_master: [m, m]\n", "7:20", "'m' is there twice"},
    {P S REDIS "  members: sentinel\n  sentinel_master: m:0\n", "7:20", "takes 1 to 100000000"},
    {P S "  protocol: memcache\n  redis: true\n", "5:3", "contradict each other"},
    {P S "  eject: never\n", "5:10", "\"never\" is none of keep, rehash, spare"},
    {P S "  eject: spare\n", "5:3", "spare needs a spare"},
    {P S "  - h:3:1 role=spare\n", "5:5", "the pool would never use it"},
    {P "  eject: spare\n  servers: [h:3:1 role=spare]\n", "4:3", "has no servers"},
    {P "  servers: [h:3:1 role=main]\n", "3:13", "has an invalid \"role=main\""},
    {P "  servers: ['h:3:1 slots=1 slots=2']\n", "3:13", "has an invalid \"slots=1\""},
    {P "  servers: [h:3:1 slots=1]\n", "3:13", "server 'h:3' has slots, but the pool does not use"},
    {P "  servers: [h:3:1 range=a..b]\n", "3:13", "has a range, but the pool does not use it"},
    {P "  distribution: slots\n  servers: ['h:1:1 slots=0-9,9']\n", "4:13",
     "slot 9 belongs to both 'h:1' and 'h:1'"},
    {P "  distribution: slots\n  servers: ['h:1:1 slots=0-9,11-16383']\n", "4:3",
     "slots 10-10 belong to no server"},
    {P "  distribution: slots\n  servers: ['h:1:1 slots=0-16384']\n", "4:13",
     "invalid slot range \"0-16384\""},
    {P "  distribution: slots\n  servers: ['h:1:1 slots=']\n", "4:13", "invalid slot range \"\""},
    {P S "  distribution: slots\n  hash: md5\n", "6:3", "slots are always crc16"},
    {P S "  distribution: slots\n  hash_tag: $$\n", "6:3", "slots are always tagged by \"{}\""},
    {P S "  distribution: slots\n  eject: rehash\n", "6:3", "use keep or spare"},
    {P "  distribution: range\n  servers: [h:1:1 range=a..b]\n", "4:3", "belong to no range="},
    {P "  distribution: range\n  servers: ['h:1:1 range=..b,a..']\n", "4:3", "key ranges overlap"},
    {P "  distribution: range\n  servers: ['h:1:1 range=b..a']\n", "4:3", "ends before it starts"},
    {P "  distribution: range\n  servers: ['h:1:1 range=b']\n", "4:13", "invalid key range \"b\""},
    {P "  distribution: range\n  servers: ['h:1:1 range=%4..']\n", "4:13", "invalid key range"},
    {P S "  commands: [a]\n", "5:13", "write {allow: [..], deny: [..]}"},
    {P S "  commands: {allow: [a b]}\n", "5:21", "\"a b\" is no command"},
    {P S "  commands: {allow: keys, deny: get KEYS}\n", "5:3", "\"keys\" is both allowed and denied"},
    {P S "  commands: {allow: config|fly}\n", "5:21", "\"config|fly\" is no command"},
    {P S "  commands: {allow: fly|get}\n", "5:21", "\"fly|get\" is no command"},
    {P S "  commands: {allow: '|'}\n", "5:21", "\"|\" is no command"},
    {P S "  commands: {forbid: a}\n", "5:14", "directive \"commands.forbid\" is unknown"},
    {P S "  connect_timeout: 5 s\n", "5:20", "write milliseconds (400) or a time with its unit"},
    {P S "  connect_timeout: 0\n", "5:20", "it takes milliseconds from 1 to"},
    {P S "weir: 1\n", "5:7", "it takes a mapping"},
    {P S "weir: {workers: 2}\n", "5:7", "\"version\" is missing"},
    {P S "weir: {version: 2}\n", "5:17", "this program reads version 1"},
    {P S "weir: {version: 1}\nweir: {version: 1}\n", "6:1", "directive \"weir\" is a duplicate"},
    {P S "weir: {version: 1, workers: 0}\n", "5:29", "it takes 1 to 1024"},
    {P S "weir: {version: 1, workers: many}\n", "5:29", "is not a number"},
    {P S "weir: {version: 1, cpu_affinity: [x]}\n", "5:34", "a list of cores"},
    {P S "weir: {version: 1, group: g}\n", "5:7", "is only valid with a user"},
    {P S "weir: {version: 1, log: x}\n", "5:25", "it takes a mapping, {file: ..}"},
    {P S "weir: {version: 1, log: {level: loud}}\n", "5:33", "write 0 to 11, or emerg"},
    {P S "weir: {version: 1, limits: {arg_max: 1}}\n", "5:29",
     "directive \"limits.arg_max\" is unknown; did you mean \"args_max\"?"},
    {P S "weir: {version: 1, limits: {args_max: 1, args_max: 2}}\n", "5:42",
     "directive \"limits.args_max\" is a duplicate"},
    {P S "weir: {version: 1, limits: {value_size_max: 1x}}\n", "5:45", "(64k, 16m, 1g)"},
    {P S "weir: {version: 1, limits: {line_max: 99999999999999999999}}\n", "5:39",
     "(64k, 16m, 1g)"},
    {P S "weir: {version: 1, limits: {line_max: 18446744073709551615g}}\n", "5:39",
     "(64k, 16m, 1g)"},
    {P S "weir: {version: 1, limits: {line_max: 1g}}\n", "5:39", "it takes bytes from 512 to"},
    {P S "weir: {version: 1, stats: {listen: '0.0.0.0:22222'}}\n", "5:36", "add insecure: true"},
    {P S "weir: {version: 1, stats: {listen: /tmp/x}}\n", "5:36", "it takes host:port"},
    {P S "weir: {version: 1, stats: {listen: '127.0.0.1:1'}}\n", "2:11",
     "pool 'p' and the stats have the same listen address"},
};

static void test_errors_say_where_what_and_what_instead(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct conf *conf = NULL;
        struct conf_error error;
        char prefix[64];
        int err = conf_parse("x.yml", bytes_of_string(bad[i].yaml), &conf, &error);

        snprintf(prefix, sizeof(prefix), "x.yml:%s: conf: ", bad[i].place);
        if (err == 0 || strncmp(error.text, prefix, strlen(prefix)) != 0 ||
            strstr(error.text, bad[i].says) == NULL || strchr(error.text, '\n') != NULL) {
            print_error("%s\nsaid: %s\nnot:  %s.. %s\n\n", bad[i].yaml,
                        err == 0 ? "fine" : error.text, prefix, bad[i].says);
            failed++;
        }
        conf_destroy(&conf);
    }
    assert_int_equal(failed, 0);
}

static void expect(struct bytes yaml, const char *says)
{
    struct conf *conf = NULL;
    struct conf_error error;

    if (conf_parse("x.yml", yaml, &conf, &error) == 0)
        fail_msg("accepted what should say: %s", says);
    if (strstr(error.text, says) == NULL)
        fail_msg("said: %s\nnot: %s", error.text, says);
}

static void test_a_nul_is_found_where_it_is(void **state)
{
    (void)state;
    expect(BYTES("p:\n  listen: 1\0 27\n"), "x.yml:2:12: conf: the file has a NUL byte");
}

/* A file as large as allowed with as many pools, and one pool more. */
static void test_ten_thousand_pools_and_no_more(void **state)
{
    const size_t cap = 2 << 20;
    char *yaml = mem_alloc(cap);
    struct conf *conf = NULL;
    struct conf_error error;
    size_t len = 0;

    (void)state;
    assert_non_null(yaml);
    for (unsigned i = 0; i < CONF_POOLS_MAX; i++)
        len += (size_t)snprintf(yaml + len, cap - len,
                                "p%u: {listen: 127.0.%u.%u:1, servers: [h:1:1, h:2:1]}\n", i,
                                i / 256, i % 256);
    assert_int_equal(conf_parse("x.yml", bytes_of(yaml, len), &conf, &error), 0);
    assert_int_equal(conf->pools_count, CONF_POOLS_MAX);
    conf_destroy(&conf);
    len += (size_t)snprintf(yaml + len, cap - len, "q: {listen: h:1, servers: [h:1:1]}\n");
    expect(bytes_of(yaml, len), "has more than 10000 pools");
    mem_free(yaml);
}

static void test_a_huge_file_is_refused_unread(void **state)
{
    char *yaml = mem_alloc(CONF_FILE_SIZE_MAX + 1);

    (void)state;
    assert_non_null(yaml);
    memset(yaml, '#', CONF_FILE_SIZE_MAX + 1);
    expect(bytes_of(yaml, CONF_FILE_SIZE_MAX + 1), "the file has more than 4194304 bytes");
    expect(bytes_of(yaml, CONF_FILE_SIZE_MAX), "found 0 documents");
    memset(yaml, '[', CONF_FILE_SIZE_MAX);
    expect(bytes_of(yaml, CONF_FILE_SIZE_MAX), "has a depth greater than 6");
    memset(yaml, ' ', CONF_FILE_SIZE_MAX);
    expect(bytes_of(yaml, CONF_FILE_SIZE_MAX), "found 0 documents");
    mem_free(yaml);
}

static void test_long_words_are_cut_in_texts(void **state)
{
    char yaml[8192] = "p: {listen: 'h:1', ";
    struct conf *conf = NULL;
    struct conf_error error;

    (void)state;
    memset(yaml + 19, 'x', 900);
    snprintf(yaml + 919, 100, ": 1}\n");
    assert_int_equal(conf_parse("x.yml", bytes_of_string(yaml), &conf, &error), ERR_INVALID);
    assert_non_null(strstr(error.text, "is unknown; known are listen"));
    assert_int_equal(error.at.line, 1);
    assert_int_equal(error.at.column, 20);
}

static void test_no_password_in_an_error(void **state)
{
    char yaml[1024] = "p: {listen: 'h:1', redis: true, redis_auth: ";
    struct conf *conf = NULL;
    struct conf_error error;
    size_t len = strlen(yaml);

    (void)state;
    memset(yaml + len, 's', 300);
    snprintf(yaml + len + 300, 100, ", servers: ['h:1:1']}\n");
    assert_int_equal(conf_parse("x.yml", bytes_of_string(yaml), &conf, &error), ERR_INVALID);
    assert_non_null(strstr(error.text, "more than 255 bytes"));
    assert_null(strstr(error.text, "sss"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_say_where_what_and_what_instead),
        cmocka_unit_test(test_a_nul_is_found_where_it_is),
        cmocka_unit_test(test_ten_thousand_pools_and_no_more),
        cmocka_unit_test(test_a_huge_file_is_refused_unread),
        cmocka_unit_test(test_long_words_are_cut_in_texts),
        cmocka_unit_test(test_no_password_in_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
