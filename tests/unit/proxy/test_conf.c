/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration file means: values, defaults, order, the ring that comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/conf.h"

static struct conf *parse(const char *yaml)
{
    struct conf *conf = NULL;
    struct conf_error error;

    if (conf_parse("x.yml", bytes_of_string(yaml), &conf, &error) != 0)
        fail_msg("%s", error.text);
    assert_non_null(conf);
    assert_string_equal(error.text, "");
    return conf;
}

/* twemproxy's own example, conf/nutcracker.yml of 0.5.0, abridged where pools repeat. */
static const char nutcracker[] = "alpha:\n"
                                 "  listen: 127.0.0.1:22121\n"
                                 "  hash: fnv1a_64\n"
                                 "  distribution: ketama\n"
                                 "  auto_eject_hosts: true\n"
                                 "  redis: true\n"
                                 "  server_retry_timeout: 2000\n"
                                 "  server_failure_limit: 1\n"
                                 "  servers:\n"
                                 "   - 127.0.0.1:6379:1\n"
                                 "\n"
                                 "beta:\n"
                                 "  listen: 127.0.0.1:22122\n"
                                 "  hash: fnv1a_64\n"
                                 "  hash_tag: \"{}\"\n"
                                 "  distribution: ketama\n"
                                 "  auto_eject_hosts: false\n"
                                 "  timeout: 400\n"
                                 "  redis: true\n"
                                 "  servers:\n"
                                 "   - 127.0.0.1:6380:1 server1\n"
                                 "   - 127.0.0.1:6381:1 server2\n"
                                 "\n"
                                 "omega:\n"
                                 "  listen: /tmp/gamma 0666\n"
                                 "  hash: hsieh\n"
                                 "  distribution: modula\n"
                                 "  backlog: 1024\n"
                                 "  preconnect: true\n"
                                 "  client_connections: 100\n"
                                 "  server_connections: 3\n"
                                 "  tcpkeepalive: true\n"
                                 "  servers:\n"
                                 "   - 127.0.0.1:11214:100000\n"
                                 "   - 127.0.0.1:11211:1\n"
                                 "   - /var/run/mc.sock:2\n"
                                 "   - /var/run/mc2.sock:2 unix\n";

static void test_twemproxys_file_means_what_it_meant(void **state)
{
    struct conf *conf = parse(nutcracker);
    const struct conf_pool *pool;

    (void)state;
    assert_int_equal(conf->pools_count, 3);
    assert_string_equal(conf->pools[0].name, "beta"); /* four letters before five */
    assert_false(conf->process.is_present);
    pool = conf_pool_by_name(conf, BYTES("alpha"));
    assert_string_equal(pool->listen.host, "127.0.0.1");
    assert_int_equal(pool->listen.port, 22121);
    assert_true(pool->redis);
    assert_int_equal(pool->protocol, CONF_PROTOCOL_redis);
    assert_int_equal(pool->eject, CONF_EJECT_rehash);
    assert_int_equal(pool->server_retry_timeout_ms, 2000);
    assert_int_equal(pool->server_failure_limit, 1);
    assert_int_equal(pool->timeout_ms, -1);
    assert_int_equal(pool->connect_timeout_ms, 5000);
    assert_int_equal(pool->reply_timeout_ms, -1);
    assert_string_equal(pool->servers[0].name, "127.0.0.1:6379");
    assert_string_equal(pool->servers[0].pname, "127.0.0.1:6379:1");

    pool = conf_pool_by_name(conf, BYTES("beta"));
    assert_true(pool->has_hash_tag);
    assert_memory_equal(pool->hash_tag, "{}", 2);
    assert_int_equal(pool->eject, CONF_EJECT_keep);
    assert_int_equal(pool->timeout_ms, 400);
    assert_int_equal(pool->connect_timeout_ms, 400);
    assert_int_equal(pool->queue_timeout_ms, 400);
    assert_string_equal(pool->servers[1].name, "server2");
    assert_string_equal(pool->servers[1].pname, "127.0.0.1:6381:1");
    assert_true(pool->servers[1].has_name);

    pool = conf_pool_by_name(conf, BYTES("omega"));
    assert_string_equal(pool->listen.path, "/tmp/gamma");
    assert_null(pool->listen.host);
    assert_int_equal(pool->listen.mode, 0666);
    assert_int_equal(pool->hash, HASH_hsieh);
    assert_int_equal(pool->distribution, RING_modula);
    assert_int_equal(pool->backlog, 1024);
    assert_int_equal(pool->client_connections, 100);
    assert_int_equal(pool->server_connections, 3);
    assert_true(pool->preconnect);
    assert_true(pool->tcpkeepalive);
    /* By length, then bytes; 11211 leaves the label; an unnamed path keeps its colon. */
    assert_string_equal(pool->servers[0].name, "unix");
    assert_string_equal(pool->servers[0].address.path, "/var/run/mc2.sock");
    assert_string_equal(pool->servers[1].name, "127.0.0.1");
    assert_int_equal(pool->servers[1].address.port, 11211);
    assert_string_equal(pool->servers[2].name, "127.0.0.1:11214");
    assert_int_equal(pool->servers[2].weight, 100000);
    assert_string_equal(pool->servers[3].name, "/var/run/mc.sock:");
    assert_int_equal(pool->servers[3].file_index, 2);
    conf_destroy(&conf);
    assert_null(conf);
    conf_destroy(&conf);
}

static void test_defaults_are_twemproxys(void **state)
{
    struct conf *conf = parse("p:\n  listen: localhost:1\n  servers:\n  - h:2:3\n");
    const struct conf_pool *pool = conf->pools;

    (void)state;
    assert_int_equal(pool->hash, HASH_fnv1a_64);
    assert_int_equal(pool->distribution, RING_ketama);
    assert_false(pool->has_hash_tag);
    assert_int_equal(pool->backlog, 512);
    assert_int_equal(pool->client_connections, 0);
    assert_false(pool->redis);
    assert_null(pool->redis_auth);
    assert_int_equal(pool->redis_db, 0);
    assert_false(pool->preconnect);
    assert_false(pool->tcpkeepalive);
    assert_false(pool->auto_eject_hosts);
    assert_int_equal(pool->server_connections, 1);
    assert_int_equal(pool->server_retry_timeout_ms, 30000);
    assert_int_equal(pool->server_failure_limit, 2);
    assert_int_equal(pool->members, CONF_MEMBERS_static);
    assert_int_equal(conf->process.workers, 0);
    assert_int_equal(conf->process.log_level, -1);
    assert_null(conf->process.stats_listen.text);
    assert_int_equal(conf->process.limits.args_max, 1048576);
    assert_int_equal(conf->warnings_count, 0);
    conf_destroy(&conf);
}

static void test_process_mapping(void **state)
{
    struct conf *conf = parse("weir:\n"
                              "  version: 1\n"
                              "  workers: 4\n"
                              "  accept: exclusive\n"
                              "  cpu_affinity: [0, 2]\n"
                              "  user: nobody\n"
                              "  group: nogroup\n"
                              "  drain_timeout: 1m\n"
                              "  rlimit_nofile: 100000\n"
                              "  control: /run/weir/control\n"
                              "  pid_file: /run/weir/pid\n"
                              "  log: {file: /var/log/weir.log, level: info}\n"
                              "  stats: {listen: '127.0.0.1:22222', interval: 1s}\n"
                              "  slowlog:\n"
                              "    threshold: off\n"
                              "    entries: 10\n"
                              "  hotkeys: {entries: 0, sample: 10}\n"
                              "  bigkeys: {size: 1m}\n"
                              "  limits:\n"
                              "    request_size_max: 2g\n"
                              "    value_size_max: 64MiB\n"
                              "    line_max: 64k\n"
                              "    clients_max: 5\n"
                              "    idle_timeout: 5m\n"
                              "p: {listen: ':1', servers: [h:2:3]}\n");
    const struct conf_process *process = &conf->process;

    (void)state;
    assert_true(process->is_present);
    assert_int_equal(process->workers, 4);
    assert_int_equal(process->accept, CONF_ACCEPT_exclusive);
    assert_false(process->cpu_affinity_auto);
    assert_int_equal(process->cpus_count, 2);
    assert_int_equal(process->cpus[1], 2);
    assert_string_equal(process->user, "nobody");
    assert_string_equal(process->group, "nogroup");
    assert_int_equal(process->drain_timeout_ms, 60000);
    assert_int_equal(process->rlimit_nofile, 100000);
    assert_string_equal(process->control, "/run/weir/control");
    assert_string_equal(process->log_file, "/var/log/weir.log");
    assert_int_equal(process->log_level, 6);
    assert_int_equal(process->stats_listen.port, 22222);
    assert_int_equal(process->stats_interval_ms, 1000);
    assert_int_equal(process->slowlog_threshold_ms, -1);
    assert_int_equal(process->hotkeys_entries, 0);
    assert_int_equal(process->bigkeys_size, 1 << 20);
    assert_int_equal(process->limits.request_size_max, 2ll << 30);
    assert_int_equal(process->limits.value_size_max, 64 << 20);
    assert_int_equal(process->limits.line_max, 65536);
    assert_int_equal(process->limits.idle_timeout_ms, 300000);
    assert_int_equal(conf->pools_count, 1);
    assert_string_equal(conf->pools[0].listen.host, "");
    assert_int_equal(conf->warnings_count, 1); /* public, no password */
    assert_non_null(strstr(conf->warnings[0].text, "x.yml:25:13: "));
    conf_destroy(&conf);
}

static void test_a_pool_may_be_called_weir(void **state)
{
    struct conf *conf = parse("weir:\n  listen: 127.0.0.1:1\n  servers:\n  - h:2:3\n");

    (void)state;
    assert_int_equal(conf->pools_count, 1);
    assert_string_equal(conf->pools[0].name, "weir");
    assert_false(conf->process.is_present);
    conf_destroy(&conf);
}

static void test_pool_keys_of_weir(void **state)
{
    struct conf *conf = parse("p:\n"
                              "  listen: '[::1]:1'\n"
                              "  protocol: auto\n"
                              "  redis_auth: secret\n"
                              "  connect_timeout: 100ms\n"
                              "  queue_timeout: 2s\n"
                              "  reply_timeout: off\n"
                              "  timeout: 50\n"
                              "  eject: spare\n"
                              "  probe_interval: 250\n"
                              "  paranoid: true\n"
                              "  commands: {allow: [CONFIG|GET, monitor], deny: keys flushall}\n"
                              "  servers:\n"
                              "  - '[fe80::1]:7000:1 a'\n"
                              "  - fe80::2:7000:1\n"
                              "  - h:7001:1 z role=spare\n");
    const struct conf_pool *pool = conf->pools;

    (void)state;
    assert_string_equal(pool->listen.host, "::1");
    assert_int_equal(pool->protocol, CONF_PROTOCOL_auto);
    assert_string_equal(pool->redis_auth, "secret");
    assert_int_equal(pool->connect_timeout_ms, 100);
    assert_int_equal(pool->queue_timeout_ms, 2000);
    assert_int_equal(pool->reply_timeout_ms, -1);
    assert_int_equal(pool->eject, CONF_EJECT_spare);
    assert_int_equal(pool->probe_interval_ms, 250);
    assert_true(pool->paranoid);
    assert_int_equal(pool->commands_allow.count, 2);
    assert_string_equal(pool->commands_allow.items[0], "config|get");
    assert_int_equal(pool->commands_deny.count, 2);
    assert_string_equal(pool->commands_deny.items[1], "flushall");
    assert_string_equal(pool->servers[0].name, "a");
    assert_string_equal(pool->servers[0].address.host, "fe80::1");
    assert_string_equal(pool->servers[1].name, "z");
    assert_true(pool->servers[1].is_spare);
    assert_string_equal(pool->servers[1].pname, "h:7001:1");
    assert_int_equal(pool->spares_count, 1);
    assert_string_equal(pool->servers[2].name, "fe80::2:7000");
    assert_string_equal(pool->servers[2].address.host, "fe80::2");
    conf_destroy(&conf);
}

static void test_a_name_that_looks_like_a_role_is_a_name(void **state)
{
    struct conf *conf = parse("p: {listen: 127.0.0.1:1, servers: [h:2:3 spare, i:2:3 slots]}\n");

    (void)state;
    assert_string_equal(conf->pools[0].servers[0].name, "slots");
    assert_string_equal(conf->pools[0].servers[1].name, "spare");
    assert_false(conf->pools[0].servers[1].is_spare);
    conf_destroy(&conf);
}

static void test_slots_and_ranges(void **state)
{
    struct conf *conf =
        parse("s: {listen: 127.0.0.1:1, distribution: slots, servers: [\n"
              "  'h:1:1 a slots=0-100,102-16383', 'h:2:1 b slots=101']}\n"
              "e: {listen: 127.0.0.1:2, distribution: slots, servers: [h:1:1, h:2:1]}\n"
              "r: {listen: 127.0.0.1:3, distribution: range, servers: [\n"
              "  'h:1:1 a range=..%6d,x..', 'h:2:1 range=m..x']}\n");
    const struct conf_pool *slots = conf_pool_by_name(conf, BYTES("s"));
    struct ring *ring;

    (void)state;
    assert_int_equal(slots->servers[0].slots_count, 2);
    assert_int_equal(slots->hash, HASH_crc16);
    assert_int_equal(conf_pool_ring(slots, NULL, &ring), 0);
    assert_int_equal(ring_lookup_hash(ring, 101), 1);
    assert_int_equal(ring_lookup_hash(ring, 102), 0);
    ring_destroy(&ring);
    assert_int_equal(conf_pool_ring(conf_pool_by_name(conf, BYTES("e")), NULL, &ring), 0);
    assert_int_equal(ring_lookup_hash(ring, 8191), 0);
    assert_int_equal(ring_lookup_hash(ring, 8192), 1);
    ring_destroy(&ring);
    assert_int_equal(conf_pool_ring(conf_pool_by_name(conf, BYTES("r")), NULL, &ring), 0);
    assert_int_equal(ring_server_name(ring, ring_lookup(ring, BYTES("n"), 0)).len, 3);
    assert_int_equal(ring_server_name(ring, ring_lookup(ring, BYTES("m"), 0)).len, 3);
    assert_int_equal(ring_server_name(ring, ring_lookup(ring, BYTES("lz"), 0)).len, 1);
    assert_int_equal(ring_server_name(ring, ring_lookup(ring, BYTES("xa"), 0)).len, 1);
    ring_destroy(&ring);
    conf_destroy(&conf);
}

static void test_jump_keeps_the_order_of_lines(void **state)
{
    struct conf *conf =
        parse("p: {listen: 127.0.0.1:1, distribution: jump, servers: [zz:1:1, y:1:1, zzz:1:1]}\n");

    (void)state;
    assert_string_equal(conf->pools[0].servers[0].name, "zz:1");
    assert_string_equal(conf->pools[0].servers[1].name, "y:1");
    assert_string_equal(conf->pools[0].servers[2].name, "zzz:1");
    conf_destroy(&conf);
}

static void test_cluster_and_sentinel(void **state)
{
    struct conf *conf = parse("c:\n"
                              "  listen: 127.0.0.1:1\n"
                              "  redis: true\n"
                              "  members: redis-cluster\n"
                              "  servers:\n"
                              "  - 10.0.0.1:7000\n"
                              "  - 10.0.0.2:7000:1\n"
                              "  - '[::1]:7000'\n"
                              "s:\n"
                              "  listen: 127.0.0.1:2\n"
                              "  redis: true\n"
                              "  members: sentinel\n"
                              "  sentinel_master: [two:3, one]\n"
                              "  sentinel_auth: x\n"
                              "  servers: [h:26379, i:26379]\n");
    const struct conf_pool *cluster = conf_pool_by_name(conf, BYTES("c"));
    const struct conf_pool *sentinel = conf_pool_by_name(conf, BYTES("s"));
    struct ring *ring = NULL;

    (void)state;
    assert_int_equal(cluster->members, CONF_MEMBERS_redis_cluster);
    assert_int_equal(cluster->distribution, RING_slots);
    assert_int_equal(cluster->servers_count, 3);
    assert_string_equal(cluster->servers[0].name, "[::1]:7000");
    assert_string_equal(cluster->servers[0].address.host, "::1");
    assert_int_equal(cluster->servers[1].address.port, 7000);
    assert_int_equal(conf_pool_ring(cluster, NULL, &ring), ERR_UNSUPPORTED);
    assert_int_equal(sentinel->masters_count, 2);
    assert_string_equal(sentinel->masters[0].name, "one");
    assert_int_equal(sentinel->masters[1].weight, 3);
    assert_int_equal(conf_pool_ring(sentinel, NULL, &ring), 0);
    assert_int_equal(ring_server_count(ring), 2);
    assert_true(ring_server_share(ring, 1) > 2 * ring_server_share(ring, 0));
    ring_destroy(&ring);
    conf_destroy(&conf);
}

static void test_ring_leaves_spares_and_dead_servers_out(void **state)
{
    struct conf *conf = parse("p: {listen: 127.0.0.1:1, eject: spare, servers: [a:1:1, b:1:1, "
                              "'c:1:1 role=spare']}\n");
    const bool live[] = {false, true, true};
    struct ring *ring;

    (void)state;
    assert_int_equal(conf_pool_ring(conf->pools, NULL, &ring), 0);
    assert_int_equal(ring_live_count(ring), 2);
    assert_int_equal(ring_server_share(ring, 2), 0);
    ring_destroy(&ring);
    assert_int_equal(conf_pool_ring(conf->pools, live, &ring), 0);
    assert_int_equal(ring_live_count(ring), 1);
    assert_int_equal(ring_lookup(ring, BYTES("x"), 0), 1);
    ring_destroy(&ring);
    conf_destroy(&conf);
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

/* Described, read, described again: the same text, so nothing is lost or invented on the way. */
static void test_description_reads_back(void **state)
{
    static const char *const sources[] = {
        nutcracker,
        "weir: {version: 1, workers: 2, cpu_affinity: [3], user: u, log: {level: 3, file: f},\n"
        "  stats: {listen: 'h:1', insecure: true, interval: 5}, slowlog: {threshold: off}}\n"
        "'a \"b\\c': {listen: '/tmp/a b 0600', redis: true, commands: {allow: ['*', stats]},\n"
        "  eject: spare, servers: ['h:1:1 n\"', '[::1]:1:2', 'h:2:1 role=spare']}\n",
        "c: {listen: h:1, redis: true, members: redis-cluster, servers: [h:1]}\n"
        "s: {listen: h:2, redis: true, members: sentinel, sentinel_master: m, servers: [h:1]}\n"
        "x: {listen: h:3, distribution: slots, servers: [h:1:1 slots=0-16383, h:2:1]}\n"
        "r: {listen: h:4, distribution: range, servers: [h:1:1 range=..%2C, 'h:2:1 range=%2c..']}\n"
        "j: {listen: h:5, distribution: jump, servers: [z:1:1, h:2:1], timeout: 0}\n",
    };
    static struct text first, second;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(sources); i++) {
        struct conf *conf = parse(sources[i]);

        first.len = second.len = 0;
        conf_describe(conf, collect, &first);
        conf_destroy(&conf);
        conf = parse(first.data);
        conf_describe(conf, collect, &second);
        conf_destroy(&conf);
        assert_string_equal(first.data, second.data);
    }
}

static void test_description_shows_no_password(void **state)
{
    struct conf *conf =
        parse("p: {listen: h:1, redis: true, redis_auth: hunter2, servers: [h:1:1]}");
    static struct text text;

    (void)state;
    text.len = 0;
    conf_describe(conf, collect, &text);
    assert_null(strstr(text.data, "hunter2"));
    assert_non_null(strstr(text.data, "# redis_auth: (not shown)"));
    conf_destroy(&conf);
}

static void test_warnings(void **state)
{
    struct conf *conf = parse("p: {listen: 0.0.0.0:1, hash: crc32, servers: [h:1:1 a, h:1:1 b]}");

    (void)state;
    assert_int_equal(conf->warnings_count, 3);
    assert_string_equal(conf->warnings[0].text,
                        "x.yml:1:56: conf: pool 'p' has the server h:1 twice, as 'a' and 'b'");
    conf_destroy(&conf);
    conf = parse("p: {listen: 0.0.0.0:1, insecure: true, servers: [h:1:1 a]}");
    assert_int_equal(conf->warnings_count, 0);
    conf_destroy(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twemproxys_file_means_what_it_meant),
        cmocka_unit_test(test_defaults_are_twemproxys),
        cmocka_unit_test(test_process_mapping),
        cmocka_unit_test(test_a_pool_may_be_called_weir),
        cmocka_unit_test(test_pool_keys_of_weir),
        cmocka_unit_test(test_a_name_that_looks_like_a_role_is_a_name),
        cmocka_unit_test(test_slots_and_ranges),
        cmocka_unit_test(test_jump_keeps_the_order_of_lines),
        cmocka_unit_test(test_cluster_and_sentinel),
        cmocka_unit_test(test_ring_leaves_spares_and_dead_servers_out),
        cmocka_unit_test(test_description_reads_back),
        cmocka_unit_test(test_description_shows_no_password),
        cmocka_unit_test(test_warnings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
