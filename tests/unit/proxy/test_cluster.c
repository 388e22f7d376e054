/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis Cluster pools over the simulated network: nodes that are a model (slots, keys, ASK, TRYAGAIN, MOVED),
 * slots that move all the time, clients that know what every answer must be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/mem.h"
#include "common/io/io_sim.h"
#include "common/proto/resp.h"
#include "proxy/cluster.h"

#define MS         UINT64_C(1000)
#define NODES      3
#define FACES      24 /* addresses that a node may have, one after the other */
#define KEYS       48 /* of each client */
#define CLIENTS    6
#define DEPTH_MAX  8
#define PEERS_MAX  256
#define SLOTS      16384u

struct world;

/* A connection to a model node. */
struct peer {
    struct io_stream stream;
    struct world *world;
    struct resp_parser parser;
    uint32_t node;
    bool is_asking, is_used;
};

struct key {
    char name[24];
    uint32_t slot;
    int home;       /* the node that has it; -1: none does */
    uint32_t value; /* as the nodes have it */
};

struct expected {
    uint32_t first_key, key_count; /* MGET: the keys from first_key on; SET: 0 */
    uint32_t values[4];
};

struct client_model {
    struct io_stream stream;
    struct world *world;
    uint32_t index, depth;
    struct expected waiting[DEPTH_MAX];
    uint32_t waiting_count;
    uint32_t known[KEYS]; /* the last value that was set; 0: none */
    uint32_t done_count, tryagain_count;
};

struct world {
    struct sim *sim;
    struct sim_node *servers, *clients, *proxy_node;
    struct io_listener node_listeners[NODES * FACES], proxy_listener;
    struct peer peers[PEERS_MAX];
    struct resp_args args;
    struct key keys[CLIENTS * KEYS];
    uint32_t face[NODES]; /* which address a node has now */
    uint8_t owner[SLOTS];
    int moving_slot, moving_to; /* one at a time; -1: none */
    struct client_model models[CLIENTS];
    struct conf *conf;
    struct proxy *proxy;
    uint32_t moved_replies, ask_replies, tryagain_replies, slots_replies, moves;
    bool is_stopping;
};

static void send_text(struct io_stream *stream, const char *text, size_t len)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)text, .iov_len = len};

    assert_int_equal(io_stream_send(stream, &slice, 1), len);
}

/* ---- the nodes ---------------------------------------------------------------------------------- */

static uint16_t node_port(const struct world *world, uint32_t node)
{
    return (uint16_t)(7000 + node + world->face[node] * NODES);
}

static void node_address(struct world *world, uint32_t node, char out[IO_ADDR_TEXT_MAX])
{
    struct io_addr addr;

    sim_node_addr(world->servers, node_port(world, node), &addr);
    io_addr_text(&addr, out);
}

static struct key *find_key(struct world *world, struct bytes name)
{
    const char *brace = memchr(name.data, '}', name.len);
    uint64_t index;

    assert_non_null(brace);
    assert_true(bytes_to_u64(bytes_skip(name, (size_t)(brace - name.data) + 1), CLIENTS * KEYS - 1, &index));
    assert_true(bytes_equal(name, bytes_of_string(world->keys[index].name)));
    return &world->keys[index];
}

static void reply_slots(struct peer *peer)
{
    struct world *world = peer->world;
    struct buffer ranges = {0}, out = {0};
    uint32_t count = 0;

    for (uint32_t first = 0, slot = 1; slot <= SLOTS; slot++) {
        char text[IO_ADDR_TEXT_MAX];
        uint32_t owner = world->owner[first];

        if (slot < SLOTS && world->owner[slot] == owner)
            continue;
        node_address(world, owner, text);
        *strrchr(text, ':') = '\0';
        buffer_append_format(&ranges, "*3\r\n:%u\r\n:%u\r\n*3\r\n$%zu\r\n%s\r\n:%u\r\n$2\r\nid\r\n", first,
                             slot - 1, strlen(text), text, node_port(world, owner));
        first = slot;
        count++;
    }
    buffer_append_format(&out, "*%u\r\n", count);
    buffer_append(&out, ranges.data, ranges.len);
    send_text(&peer->stream, out.data, out.len);
    buffer_deinit(&ranges);
    buffer_deinit(&out);
    world->slots_replies++;
}

/* NULL: the node serves the keys. */
static const char *refusal(struct peer *peer, const struct bytes *names, uint32_t count, char text[160])
{
    struct world *world = peer->world;
    uint32_t slot = find_key(world, names[0])->slot, missing = 0;
    bool is_moving = (int)slot == world->moving_slot;
    char address[IO_ADDR_TEXT_MAX];

    for (uint32_t i = 0; i < count; i++) {
        struct key *key = find_key(world, names[i]);

        assert_int_equal(key->slot, slot); /* the proxy never mixes slots */
        missing += key->home != (int)peer->node;
    }
    if (world->owner[slot] == peer->node) {
        if (!is_moving || missing == 0)
            return NULL;
        if (missing < count) {
            world->tryagain_replies++;
            return "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
        }
        world->ask_replies++;
        node_address(world, (uint32_t)world->moving_to, address);
        snprintf(text, 160, "-ASK %u %s\r\n", slot, address);
        return text;
    }
    if (is_moving && world->moving_to == (int)peer->node && peer->is_asking) {
        if (count == 1 || missing == 0)
            return NULL;
        world->tryagain_replies++;
        return "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    }
    world->moved_replies++;
    node_address(world, world->owner[slot], address);
    snprintf(text, 160, "-MOVED %u %s\r\n", slot, address);
    return text;
}

static void reply_get(struct peer *peer, const struct bytes *names, uint32_t count, bool is_array)
{
    struct buffer out = {0};

    if (is_array)
        buffer_append_format(&out, "*%u\r\n", count);
    for (uint32_t i = 0; i < count; i++) {
        const struct key *key = find_key(peer->world, names[i]);
        char text[48];

        if (key->home != (int)peer->node) {
            buffer_append_string(&out, "$-1\r\n");
            continue;
        }
        snprintf(text, sizeof(text), "%s=%u", key->name, key->value);
        buffer_append_format(&out, "$%zu\r\n%s\r\n", strlen(text), text);
    }
    send_text(&peer->stream, out.data, out.len);
    buffer_deinit(&out);
}

static void serve(struct peer *peer, const struct resp_request *request)
{
    const struct bytes *argv = request->argv;
    char text[160];
    const char *no;

    if (bytes_equal(argv[0], BYTES("ASKING"))) {
        peer->is_asking = true;
        send_text(&peer->stream, "+OK\r\n", 5);
        return;
    }
    if (bytes_equal(argv[0], BYTES("CLUSTER"))) {
        reply_slots(peer);
        return;
    }
    no = refusal(peer, argv + 1, bytes_equal(argv[0], BYTES("SET")) ? 1 : request->argc - 1, text);
    peer->is_asking = false;
    if (no != NULL) {
        send_text(&peer->stream, no, strlen(no));
    } else if (bytes_equal(argv[0], BYTES("SET"))) {
        struct key *key = find_key(peer->world, argv[1]);
        uint64_t value;

        assert_true(bytes_to_u64(bytes_skip(argv[2], strlen(key->name) + 1), UINT32_MAX, &value));
        key->home = (int)peer->node;
        key->value = (uint32_t)value;
        send_text(&peer->stream, "+OK\r\n", 5);
    } else {
        reply_get(peer, argv + 1, request->argc - 1, bytes_equal(argv[0], BYTES("MGET")));
    }
}

static size_t peer_recv(struct io_stream *stream, struct bytes data)
{
    struct peer *peer = CONTAINER_OF(stream, struct peer, stream);
    size_t consumed = 0;

    while (consumed < data.len) {
        struct resp_request request;

        if (resp_parse(&peer->parser, &peer->world->args, &PROTO_LIMITS_DEFAULT, bytes_skip(data, consumed),
                       false, &request) != PARSE_OK)
            break;
        consumed += request.len;
        serve(peer, &request);
    }
    return consumed;
}

static void peer_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct peer *peer = CONTAINER_OF(stream, struct peer, stream);

    MAYBE(err);
    MAYBE(rest.len);
    io_stream_close(stream);
    peer->is_used = false;
}

static const struct io_stream_handler peer_handler = {.recv = peer_recv, .closed = peer_closed};

static void node_accepted(struct io_listener *listener, int fd, const struct io_addr *from)
{
    struct world *world = listener->arg;
    struct io_stream_options options = {0};

    MAYBE(from);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &world->peers[i];

        if (peer->is_used)
            continue;
        memset(peer, 0, sizeof(*peer));
        peer->is_used = true;
        peer->world = world;
        peer->node = (uint32_t)(listener - world->node_listeners) % NODES;
        assert_int_equal(io_stream_open(sim_node_io(world->servers), &peer->stream, &peer_handler, fd,
                                        &options, BYTES_EMPTY), 0);
        io_stream_resume(&peer->stream);
        return;
    }
    fail_msg("too many connections to the nodes");
}

static void nodes_listen(struct world *world)
{
    for (uint32_t i = 0; i < NODES * FACES; i++) {
        struct io_addr addr;
        int fd;

        sim_node_addr(world->servers, (uint16_t)(7000 + i), &addr);
        assert_int_equal(sim_listen(world->servers, &addr, &fd), 0);
        world->node_listeners[i].accepted = node_accepted;
        world->node_listeners[i].arg = world;
        io_listener_start(sim_node_io(world->servers), &world->node_listeners[i], fd);
    }
}

/* One step of a move: begins it, takes a key over, or ends it. */
static void move_step(void *arg)
{
    struct world *world = arg;
    uint64_t chance = sim_random_below(world->sim, SIM_RANDOM_WORKLOAD, CLIENTS * KEYS);
    uint32_t left = 0;

    if (world->is_stopping)
        return;
    if (world->moving_slot < 0) {
        world->moving_slot = (int)world->keys[chance].slot;
        world->moving_to = (world->owner[world->moving_slot] + 1) % NODES;
    } else {
        bool is_done = false;

        for (uint32_t i = 0; i < CLIENTS * KEYS; i++) {
            struct key *key = &world->keys[i];

            if ((int)key->slot != world->moving_slot || key->home != world->owner[key->slot])
                continue;
            if (!is_done)
                key->home = world->moving_to;
            else
                left++;
            is_done = true;
        }
        if (left == 0 && !is_done) {
            world->owner[world->moving_slot] = (uint8_t)world->moving_to;
            world->moving_slot = world->moving_to = -1;
            world->moves++;
        }
    }
    sim_call_at(world->sim, sim_now_us(world->sim) + 200 + chance * 10, move_step, world);
}

/* A node gets another address. The old one answers as long as somebody is connected. */
static void change_face(void *arg)
{
    struct world *world = arg;
    uint32_t node = (uint32_t)sim_random_below(world->sim, SIM_RANDOM_WORKLOAD, NODES);

    if (world->is_stopping)
        return;
    world->face[node] = (world->face[node] + 1) % FACES;
    sim_call_at(world->sim, sim_now_us(world->sim) + 100 * MS, change_face, world);
}

/* ---- the clients ----------------------------------------------------------------------------------- */

static void client_ask(struct client_model *model)
{
    struct world *world = model->world;
    struct expected *expected = &model->waiting[model->waiting_count++];
    uint32_t key = (uint32_t)sim_random_below(world->sim, SIM_RANDOM_WORKLOAD, KEYS - 3);
    uint32_t kind = (uint32_t)sim_random_below(world->sim, SIM_RANDOM_WORKLOAD, 3);
    const struct key *keys = &world->keys[model->index * KEYS];
    struct buffer out = {0};

    memset(expected, 0, sizeof(*expected));
    expected->first_key = key;
    if (kind == 0) {
        char value[48];

        model->known[key]++;
        snprintf(value, sizeof(value), "%s=%u", keys[key].name, model->known[key]);
        buffer_append_format(&out, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(keys[key].name),
                             keys[key].name, strlen(value), value);
    } else {
        uint32_t count = kind == 1 ? 1 : 4;

        expected->key_count = count;
        buffer_append_format(&out, "*%u\r\n$%d\r\n%s\r\n", count + 1, count == 1 ? 3 : 4,
                             count == 1 ? "GET" : "MGET");
        for (uint32_t i = 0; i < count; i++) {
            expected->values[i] = model->known[key + i];
            buffer_append_format(&out, "$%zu\r\n%s\r\n", strlen(keys[key + i].name), keys[key + i].name);
        }
    }
    send_text(&model->stream, out.data, out.len);
    buffer_deinit(&out);
}

/* A value begins with its key's name. In a pipeline a redirected SET may be overtaken (see
 * discovery_follow()), so only who waits for each answer knows what the value is. */
static void check_value(struct client_model *model, const struct expected *expected, uint32_t i,
                        struct bytes *cursor)
{
    const char *name = model->world->keys[model->index * KEYS + expected->first_key + i].name;
    struct resp_value value;
    char text[48];

    assert_true(resp_next(cursor, &value));
    assert_int_equal(value.type, '$');
    snprintf(text, sizeof(text), "%s=%u", name, expected->values[i]);
    if (model->depth == 1) {
        assert_int_equal(value.is_null, expected->values[i] == 0);
        if (!value.is_null)
            assert_true(bytes_equal(value.payload, bytes_of_string(text)));
    } else if (!value.is_null) {
        assert_true(value.payload.len > strlen(name));
        assert_memory_equal(value.payload.data, text, strlen(name) + 1);
    }
}

static void client_answered(struct client_model *model, struct bytes reply)
{
    struct expected expected = model->waiting[0];
    struct bytes cursor = reply;
    struct resp_value head;

    memmove(model->waiting, model->waiting + 1, sizeof(model->waiting[0]) * --model->waiting_count);
    model->done_count++;
    if (reply.data[0] == '-') {
        /* Only what came before it in the pipeline keeps a request from being asked again. */
        assert_true(model->depth > 1);
        assert_memory_equal(reply.data, "-TRYAGAIN", 9);
        model->tryagain_count++;
        return;
    }
    if (expected.key_count == 0) {
        assert_true(bytes_equal(reply, BYTES("+OK\r\n")));
        return;
    }
    if (expected.key_count > 1) {
        assert_true(resp_next(&cursor, &head));
        assert_int_equal(head.type, '*');
        assert_int_equal(head.integer, expected.key_count);
    }
    for (uint32_t i = 0; i < expected.key_count; i++)
        check_value(model, &expected, i, &cursor);
    assert_int_equal(cursor.len, 0);
}

static size_t client_recv(struct io_stream *stream, struct bytes data)
{
    struct client_model *model = CONTAINER_OF(stream, struct client_model, stream);
    size_t consumed = 0;

    while (consumed < data.len) {
        struct bytes rest = bytes_skip(data, consumed);
        struct resp_reply_parser parser = {0};
        size_t scanned;

        if (resp_reply_scan(&parser, &PROTO_LIMITS_DEFAULT, rest, &scanned) != PARSE_OK)
            break;
        assert_true(model->waiting_count > 0);
        client_answered(model, bytes_first(rest, scanned));
        consumed += scanned;
    }
    while (!model->world->is_stopping && model->waiting_count < model->depth)
        client_ask(model);
    return consumed;
}

static void client_closed(struct io_stream *stream, int err, struct bytes rest)
{
    MAYBE(stream);
    MAYBE(rest.len);
    fail_msg("the proxy closed a client: %d", err);
}

static void client_connected(struct io_stream *stream, int err)
{
    struct client_model *model = CONTAINER_OF(stream, struct client_model, stream);

    assert_int_equal(err, 0);
    while (model->waiting_count < model->depth)
        client_ask(model);
    io_stream_resume(stream);
}

static const struct io_stream_handler client_handler = {
    .recv = client_recv, .closed = client_closed, .connected = client_connected};

/* ---- the world --------------------------------------------------------------------------------------- */

static void proxy_accepted(struct io_listener *listener, int fd, const struct io_addr *from)
{
    proxy_accept(((struct world *)listener->arg)->proxy, 0, fd, from);
}

static void world_start_proxy(struct world *world)
{
    struct proxy_options options = {.io = sim_node_io(world->proxy_node)};
    struct conf_error error;
    struct io_addr addr;
    char yaml[512], seed[IO_ADDR_TEXT_MAX];
    int fd;

    node_address(world, 1, seed);
    snprintf(yaml, sizeof(yaml),
             "alpha:\n  listen: 127.0.0.1:6000\n  redis: true\n  members: redis-cluster\n"
             "  timeout: 5000\n  servers:\n    - %s:1\n", seed);
    assert_int_equal(conf_parse("test", bytes_of_string(yaml), &world->conf, &error), 0);
    options.conf = world->conf;
    assert_int_equal(proxy_create(&options, &world->proxy), 0);
    sim_node_addr(world->proxy_node, 6000, &addr);
    assert_int_equal(sim_listen(world->proxy_node, &addr, &fd), 0);
    world->proxy_listener.accepted = proxy_accepted;
    world->proxy_listener.arg = world;
    io_listener_start(sim_node_io(world->proxy_node), &world->proxy_listener, fd);
}

static struct world *world_create(uint64_t seed, uint32_t depth)
{
    struct world *world = must_zalloc(sizeof(*world));
    struct sim_options options;
    struct io_addr addr;

    sim_options_calm(&options);
    options.net.segment_min = 1 + (uint32_t)(seed % 3) * 20;
    world->sim = sim_create(seed, &options);
    world->servers = sim_node_create(world->sim, "servers");
    world->proxy_node = sim_node_create(world->sim, "proxy");
    world->clients = sim_node_create(world->sim, "clients");
    world->moving_slot = world->moving_to = -1;
    resp_args_init(&world->args);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        world->owner[slot] = (uint8_t)(slot * NODES / SLOTS);
    for (uint32_t i = 0; i < CLIENTS * KEYS; i++) {
        struct key *key = &world->keys[i];

        /* Neighbours share a tag now and then: MGETs of one slot, and of several. */
        snprintf(key->name, sizeof(key->name), "{%u}%u", i / (uint32_t)(1 + seed % 6), i);
        key->slot = hash_slot(bytes_of_string(key->name));
        key->home = -1;
    }
    world_start_proxy(world);
    sim_node_addr(world->proxy_node, 6000, &addr);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client_model *model = &world->models[i];
        struct io_stream_options stream_options = {0};

        model->world = world;
        model->index = i;
        model->depth = depth == 1 ? 1 : 1 + (uint32_t)((seed + i) % depth);
        assert_int_equal(io_stream_connect(sim_node_io(world->clients), &model->stream, &client_handler,
                                           &addr, &stream_options), 0);
    }
    return world;
}

static void world_destroy(struct world *world)
{
    world->is_stopping = true;
    for (uint32_t i = 0; i < CLIENTS; i++)
        io_stream_close(&world->models[i].stream);
    sim_run_for(world->sim, 100 * MS);
    io_listener_stop(&world->proxy_listener);
    proxy_destroy(&world->proxy);
    sim_run_for(world->sim, 100 * MS);
    sim_destroy(&world->sim);
    conf_destroy(&world->conf);
    resp_args_deinit(&world->args);
    mem_free(world);
}

/* ---- tests --------------------------------------------------------------------------------------------- */

static void run_moving(uint64_t seeds, uint32_t depth, uint64_t totals[4])
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world *world = world_create(seed, depth);

        nodes_listen(world);
        move_step(world);
        sim_run_for(world->sim, 1000 * MS);
        world->is_stopping = true;
        world->moving_slot = -1; /* what is parked finds one home again */
        for (uint32_t i = 0; i < CLIENTS * KEYS; i++)
            if (world->keys[i].home >= 0)
                world->keys[i].home = world->owner[world->keys[i].slot];
        sim_run_for(world->sim, 500 * MS);
        for (uint32_t i = 0; i < CLIENTS; i++) {
            assert_int_equal(world->models[i].waiting_count, 0);
            assert_true(world->models[i].done_count > 50);
        }
        assert_true(world->moves > 0);
        totals[0] += world->moved_replies;
        totals[1] += world->ask_replies;
        totals[2] += world->tryagain_replies;
        totals[3] += world->slots_replies;
        world_destroy(world);
    }
}

/* Each client waits for each answer: every value is exactly what it last set, and nothing fails. */
static void test_every_answer_is_right_while_slots_move(void **state)
{
    uint64_t totals[4] = {0};

    (void)state;
    run_moving(5, 1, totals);
    for (uint32_t i = 0; i < ARRAY_COUNT(totals); i++) /* all of it was met */
        assert_true(totals[i] > 0);
}

/* Pipelines: each answer belongs to its request. */
static void test_pipelines_stay_in_order_while_slots_move(void **state)
{
    uint64_t totals[4] = {0};

    (void)state;
    run_moving(5, DEPTH_MAX, totals);
    assert_true(totals[0] > 0 && totals[1] > 0);
}

/* Before any node is there requests wait; they are answered when one is. */
static void test_requests_wait_for_the_map(void **state)
{
    struct world *world = world_create(7, 4);

    (void)state;
    sim_run_for(world->sim, 1000 * MS);
    for (uint32_t i = 0; i < CLIENTS; i++)
        assert_int_equal(world->models[i].done_count, 0);
    nodes_listen(world);
    sim_run_for(world->sim, 2500 * MS);
    for (uint32_t i = 0; i < CLIENTS; i++)
        assert_true(world->models[i].done_count > 50);
    assert_int_equal(world->moved_replies, 0);
    world_destroy(world);
}

/* Nodes come and go: the places of those that left are used again, and nothing is asked of a ghost. */
static void test_nodes_come_and_go(void **state)
{
    struct world *world = world_create(3, 1);

    (void)state;
    nodes_listen(world);
    move_step(world);
    change_face(world);
    sim_run_for(world->sim, 6000 * MS);
    assert_true(world->moves > 0);
    for (uint32_t i = 0; i < CLIENTS; i++)
        assert_true(world->models[i].done_count > 50);
    assert_true(world->proxy->pools[0].counters[POOL_COUNT_topology_updates] > 20);
    assert_in_range(world->proxy->pools[0].server_count, NODES, NODES * FACES / 2);
    world_destroy(world);
}

static void test_redirects_are_understood_or_refused(void **state)
{
    static const struct {
        const char *text, *host; /* NULL: refused */
        uint32_t slot;
        uint16_t port;
    } cases[] = {
        {"3999 127.0.0.1:6381", "127.0.0.1", 3999, 6381},
        {"0 ::1:7000", "::1", 0, 7000},
        {"16383 node-3.example:7000", "node-3.example", 16383, 7000},
        {"12 :7001", "", 12, 7001},
        {"16384 127.0.0.1:6381", NULL, 0, 0},
        {"-1 127.0.0.1:6381", NULL, 0, 0},
        {"x 127.0.0.1:6381", NULL, 0, 0},
        {"12", NULL, 0, 0},
        {"12 ", NULL, 0, 0},
        {"12 host", NULL, 0, 0},
        {"12 host:", NULL, 0, 0},
        {"12 host:0", NULL, 0, 0},
        {"12 host:65536", NULL, 0, 0},
        {"12 host:70x", NULL, 0, 0},
        {"", NULL, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct discovery_target target;
        uint32_t slot;
        bool is_good = cluster_parse_redirect(bytes_of_string(cases[i].text), &slot, &target);

        assert_int_equal(is_good, cases[i].host != NULL);
        if (!is_good)
            continue;
        assert_string_equal(target.host, cases[i].host);
        assert_int_equal(target.port, cases[i].port);
        assert_int_equal(slot, cases[i].slot);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redirects_are_understood_or_refused),
        cmocka_unit_test(test_requests_wait_for_the_map),
        cmocka_unit_test(test_nodes_come_and_go),
        cmocka_unit_test(test_every_answer_is_right_while_slots_move),
        cmocka_unit_test(test_pipelines_stay_in_order_while_slots_move),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
