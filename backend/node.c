/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/node_private.h"

#include "backend/types/types.h"

#include "common/base/mem.h"

#define CLIENTS_IDLE_MAX 1024u
#define SECOND_MS        1000u
#define LONG_TURN_US     1000u
#define CPU_LOOK_US      250u
#define FLUSH_TURN_US    500u  /* then the other clients' replies are for the next turn, */
#define FLUSH_US_MIN     150u  /* when these have gone on them, too */
#define FLUSH_EARLY_US   300u
#define FLUSH_TOGETHER   32u         /* so many clients between two looks at the clock; */
#define FLUSH_FEW        8u          /* when FLUSH_EARLY_US have gone, */
#define FLUSH_LOOK_US    200u        /* or when all those would take longer, as the last ones did */
#define SEND_COST_UNIT   16u         /* of a microsecond, parts */
#define SEND_COST_MAX    (FLUSH_LOOK_US * SEND_COST_UNIT / FLUSH_FEW)
#define FLUSH_BYTES      (64u << 10) /* fewer, with so much to send */
#define PARK_LOOK_MS     2u
#define LINGER_US_MIN    100u
#define LINGER_US_MAX    1000u

/* ---- the turn ----------------------------------------------------------------------------------- */

/* What waits for the mark is flushed with the others; also when the mark will not come. */
static void node_advance(struct node *node)
{
    if (!commit_advance(&node->commit, store_marks_of(node->store)) && LIKELY(!store_has_log_failed(node->store)))
        return;
    LIST_FOR_EACH(&node->held, at)
    {
        client_mark_dirty(client_of_turn_node(at));
    }
}

/* The CPU's clock costs a system call, so not every turn ends with a look at it. What is counted for one begins with the
 * last look, and is never more than it took: at most CPU_LOOK_US too much. */
static void count_turn_cpu(struct node *node, uint64_t now_us, uint64_t took_us)
{
    struct node_turns *turns = &node->turns;
    uint64_t cpu_us = io_cpu_us(node->io), took_cpu_us = MIN(cpu_us - node->cpu_us, took_us);

    node->cpu_us = cpu_us;
    node->cpu_at_us = now_us;
    turns->cpu_long_count += took_cpu_us > LONG_TURN_US;
    turns->cpu_us_max = MAX(turns->cpu_us_max, took_cpu_us);
}

static void count_turn(struct node *node)
{
    struct node_turns *turns = &node->turns;
    uint64_t now_us = io_clock_us(node->io), took_us = now_us - io_now_us(node->io);

    turns->count++;
    turns->long_count += took_us > LONG_TURN_US;
    turns->us_max = MAX(turns->us_max, took_us);
    if (UNLIKELY(took_us > MIN(turns->cpu_us_max, (uint64_t)LONG_TURN_US) || now_us >= node->cpu_at_us + CPU_LOOK_US))
        count_turn_cpu(node, now_us, took_us);
}

/* What clients left whose peers have closed their sides. */
static void node_run_rests(struct node *node)
{
    struct list batch;
    struct list_node *at;

    list_init(&batch);
    list_move_all(&node->runs, &batch);
    while ((at = list_first(&batch)) != NULL)
        client_run_rest(client_of_turn_node(at));
}

/* A send that wakes a client on another core takes up to ten times what others do, and a few of them say of the next ones
 * what to expect: the dearest counts, and is forgotten by and by. */
static void node_flush_took(struct node *node, unsigned count, uint64_t took_us)
{
    uint64_t cost = MIN(took_us * SEND_COST_UNIT / count, (uint64_t)SEND_COST_MAX);

    node->send_cost = MAX((uint32_t)cost, node->send_cost - node->send_cost / 8);
}

static unsigned node_flush_most(const struct node *node)
{
    return MIN(FLUSH_LOOK_US * SEND_COST_UNIT / MAX(node->send_cost, 1u), FLUSH_TOGETHER);
}

/* Sends of some of the dirty clients together, at most `most` of them. Returns the time afterwards. */
static uint64_t node_flush_some(struct node *node, unsigned most, uint64_t begun_us)
{
    struct client_send sends[FLUSH_TOGETHER];
    struct io_send calls[FLUSH_TOGETHER];
    struct list_node *at;
    unsigned count = 0;
    size_t bytes = 0;
    uint64_t now_us;

    while (count < most && bytes < FLUSH_BYTES && (at = list_pop_front(&node->dirty)) != NULL) {
        struct client *client = client_of_dirty_node(at);
        struct client_send *send = &sends[count];

        if (!client_flush_begin(client, send))
            continue;
        bytes += send->total;
        calls[count++] = (struct io_send){.stream = client_stream(client), .slices = send->slices, .count = send->count};
    }
    io_streams_send(node->io, calls, count);
    for (unsigned i = 0; i < count; i++)
        client_flush_sent(&sends[i], calls[i].sent);
    now_us = io_clock_us(node->io);
    if (count > 0 && bytes < FLUSH_BYTES)
        node_flush_took(node, count, now_us - begun_us);
    return now_us;
}

static void node_flush(struct node *node)
{
    uint64_t begun_us = io_now_us(node->io), now_us = io_clock_us(node->io);
    uint64_t until_us = MAX(begun_us + FLUSH_TURN_US, now_us + FLUSH_US_MIN);

    while (!list_is_empty(&node->dirty)) {
        if (UNLIKELY(now_us >= until_us)) {
            io_wake(node->io);
            break;
        }
        now_us = node_flush_some(node, now_us < begun_us + FLUSH_EARLY_US ? node_flush_most(node) : FLUSH_FEW, now_us);
    }
    list_move_all(&node->unsent, &node->dirty);
}

static void node_closed(void *arg, int err)
{
    struct node *node = arg;

    node->is_open = false;
    node->close_done(node->close_arg, err);
}

/* An EXEC that waits for a value is run to its end before: half of it is no state to leave behind. */
static void node_close_store(struct node *node)
{
    if (LIKELY(!node->is_closing) || node->is_store_closing || engine_is_in_exec(node->engine))
        return;
    node->is_store_closing = true;
    io_timer_stop(&node->second);
    store_close(node->store, node_closed, node);
}

static void node_turn(struct io_hook *hook)
{
    struct node *node = CONTAINER_OF(hook, struct node, hook);
    struct list_node *at;

    if (UNLIKELY(!node->is_open))
        return;
    node_run_rests(node);
    engine_turn_end(node->engine);
    if (UNLIKELY(node->engine->settings->fsync != node->fsync)) {
        node->fsync = node->engine->settings->fsync;
        commit_level_set(&node->commit, (enum store_fsync)node->fsync);
    }
    store_turn_end(node->store);
    node_advance(node);
    node->is_advanced = true;
    node->is_prompt = false;
    if (list_is_empty(&node->held)) /* else what waits may be asked for with a wait */
        io_submit(node->io);         /* the disk works while replies are sent */
    node_flush(node);
    /* All that clients ask for waits for the disk: what comes meanwhile is for the next commit, and is taken in at once. */
    if (UNLIKELY(!list_is_empty(&node->held)) && !node->is_prompt)
        MAYBE(io_linger(node->io, MIN(MAX(store_commit_us(node->store), LINGER_US_MIN), LINGER_US_MAX), false));
    do
        while ((at = list_pop_front(&node->dead)) != NULL)
            client_free(client_of_turn_node(at));
    while (clients_account(node));
    io_submit(node->io); /* what is left counts for this turn */
    node->is_advanced = false;
    count_turn(node);
    node_close_store(node);
}

/* What clients get as errors, for whoever reads the log. -EROFS has been told where it happened. */
static void node_tell_refusal(struct node *node)
{
    int err = store_may_write(node->store, 1);
    unsigned shard = node->options.store.shard;

    if (err != 0 && err != ERR_FULL && err != -ENOSPC)
        return;
    if (err == node->refusal || !log_limit_allows(&node->refusals, io_now_ms(node->io), 4, 60000, NULL))
        return;
    node->refusal = err;
    if (err == ERR_FULL)
        log_warn(node->log, "shard: the keys and what clients hold need more than its memory, writes that grow are refused; "
                            "raise memory or let it hold fewer keys shard=%u", shard);
    else if (err == -ENOSPC)
        log_warn(node->log, "shard: there is no room on the disk, writes but deletes are refused; "
                            "raise disk, free some, or delete keys shard=%u", shard);
    else
        log_notice(node->log, "shard: takes all writes again shard=%u", shard);
}

static void node_second(struct io_timer *timer)
{
    struct node *node = timer->arg;

    engine_turn_begin(node->engine);
    node_tell_refusal(node);
    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        client_tick(client_of_session(CONTAINER_OF(at, struct session, node)));
    }
    clients_look(node);
    chunk_pools_trim(&node->engine->chunks);
    resp_args_trim(&node->args);
    mc_keys_trim(&node->mc_keys);
    io_timer_start(node->io, timer, SECOND_MS);
}

/* ---- what the store tells -------------------------------------------------------------------------- */

static void store_changed(void *arg, uint8_t db, struct bytes key, enum store_change_kind kind)
{
    struct node *node = arg;

    if (LIKELY(node->engine != NULL))
        engine_changed(node->engine, db, key, kind);
}

static void store_flushed(void *arg, uint8_t db)
{
    struct node *node = arg;

    if (node->engine != NULL)
        engine_flushed(node->engine, db);
}

static void store_state(void *arg)
{
    struct node *node = arg;

    if (node->engine != NULL)
        engine_state(node->engine);
}

/* The turn's end looks at the marks; this one's has, if it is under way. */
static void store_marks_moved(void *arg)
{
    struct node *node = arg;

    if (node->is_advanced)
        io_wake(node->io);
}

/* ---- life -------------------------------------------------------------------------------------------- */

static void node_opened_later(struct io_timer *timer);

static int node_open_engine(struct node *node)
{
    struct engine_options options = node->options.engine;
    int err;

    options.io = node->io;
    options.log = node->log;
    options.store = node->store;
    options.shard = node->options.store.shard;
    options.shard_count = node->options.store.shard_count;
    options.memory_max = node->options.store.memory_max;
    options.disk_max = node->options.store.disk_max;
    options.fsync = node->options.store.fsync;
    options.is_cache = node->options.store.namespaces[0].is_cache;
    options.dir = node->options.store.dir;
    err = engine_create(&options, &node->engine);
    if (err != 0)
        return err;
    node->fsync = node->engine->settings->fsync;
    commit_init(&node->commit, (enum store_fsync)node->fsync);
    MAYBE(commit_advance(&node->commit, store_marks_of(node->store)));
    node->is_open = true;
    node->cpu_us = io_cpu_us(node->io);
    node->cpu_at_us = io_now_us(node->io);
    io_timer_start(node->io, &node->second, SECOND_MS);
    return 0;
}

static void node_opened(void *arg, int err)
{
    struct node *node = arg;

    /* Never from inside node_create(): whoever made us does not have us yet. */
    node->open_err = err;
    node->second.fire = node_opened_later;
    io_timer_start(node->io, &node->second, 0);
}

static void node_opened_later(struct io_timer *timer)
{
    struct node *node = timer->arg;
    int err = node->open_err;

    node->second.fire = node_second;
    if (err == 0)
        err = node_open_engine(node);
    if (err == 0 && node->is_closing) {
        node_close_store(node);
        return;
    }
    node->options.opened(node->options.arg, err);
}

int node_create(const struct node_options *options, struct node **out)
{
    struct node *node = must_zalloc(sizeof(*node));
    struct store_options store = options->store;
    int err;

    node->options = *options;
    node->io = options->io;
    node->log = options->log;
    mem_pool_init(&node->clients, client_size(), CLIENTS_IDLE_MAX);
    resp_args_init(&node->args);
    mc_keys_init(&node->mc_keys);
    list_init(&node->dirty);
    list_init(&node->unsent);
    list_init(&node->held);
    list_init(&node->runs);
    list_init(&node->dead);
    node->second.fire = node_second;
    node->second.arg = node;
    node->hook.run = node_turn;
    io_hook_add(node->io, &node->hook);
    store.io = node->io;
    store.types[STORE_STRING] = &string_ops;
    store.types[STORE_LIST] = &list_ops;
    store.types[STORE_SET] = &set_ops;
    store.types[STORE_ZSET] = &zset_ops;
    store.types[STORE_HASH] = &hash_ops;
    store.hooks = (struct store_hooks){.arg = node,
                                       .changed = store_changed,
                                       .flushed = store_flushed,
                                       .state = store_state,
                                       .marks = store_marks_moved};
    err = store_create(&store, node_opened, node, &node->store);
    if (err != 0) {
        node_destroy(&node);
        return err;
    }
    *out = node;
    return 0;
}

void node_close(struct node *node, void (*done)(void *arg, int err), void *arg)
{
    ASSERT(!node->is_closing);
    node->is_closing = true;
    node->close_done = done;
    node->close_arg = arg;
    if (!node->is_open)
        return; /* node_opened() goes on */
    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        struct client *client = client_of_session(CONTAINER_OF(at, struct session, node));

        client_flush(client);
        client_close(client);
    }
    node_turn(&node->hook);
}

/* ---- to another process ------------------------------------------------------------------------------ */

static void park_finish(struct node *node)
{
    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        struct client *client = client_of_session(CONTAINER_OF(at, struct session, node));
        struct node_move *move = must_zalloc(sizeof(*move));

        if (client_leave(client, move))
            list_push_back(node->moves, &move->node);
        else
            mem_free(move);
    }
    node_close(node, node->close_done, node->close_arg);
}

static void park_look(struct io_timer *timer)
{
    struct node *node = timer->arg;
    uint64_t now_ms = io_now_ms(node->io);
    bool is_still = node->engine->exclusive == NULL, is_held = false;

    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        enum client_rest rest = client_park(client_of_session(CONTAINER_OF(at, struct session, node)));

        is_still &= rest == CLIENT_RESTS || rest == CLIENT_SENDS;
        is_held |= rest == CLIENT_HOLDS;
    }
    if (is_still || now_ms >= node->park_until_ms + (is_held ? NODE_PARK_HELD_MS : 0))
        park_finish(node);
    else
        io_timer_start(node->io, timer, PARK_LOOK_MS);
}

static uint64_t checkpoints(const struct node *node)
{
    struct store_stats stats;

    store_stats_get(node->store, &stats);
    return stats.checkpoints;
}

void node_prepare(struct node *node)
{
    node->prepare_from = checkpoints(node);
    MAYBE(store_checkpoint(node->store));
}

bool node_is_prepared(const struct node *node)
{
    return checkpoints(node) > node->prepare_from;
}

void node_park(struct node *node, struct list *moves, void (*done)(void *arg, int err), void *arg)
{
    ASSERT(node->is_open && !node->is_closing);
    node->moves = moves;
    node->close_done = done;
    node->close_arg = arg;
    node->park_until_ms = io_now_ms(node->io) + NODE_PARK_MS;
    node->park_timer.fire = park_look;
    node->park_timer.arg = node;
    io_timer_start(node->io, &node->park_timer, 0);
}

void node_take(struct node *node, struct node_move *move)
{
    int fd = move->fd;

    ASSERT(node->is_open || node->is_closing);
    if (!node->is_open)
        return;
    move->fd = -1;
    client_take(node, fd, buffer_bytes(&move->state));
}

void node_destroy(struct node **out)
{
    struct node *node = *out;

    if (node == NULL)
        return;
    io_timer_stop(&node->second);
    io_timer_stop(&node->park_timer);
    io_hook_remove(node->io, &node->hook);
    engine_destroy(&node->engine);
    store_destroy(&node->store);
    resp_args_deinit(&node->args);
    mc_keys_deinit(&node->mc_keys);
    mem_pool_deinit(&node->clients);
    mem_free(node);
    *out = NULL;
}

/* ---- clients -------------------------------------------------------------------------------------------- */

void node_accept(struct node *node, int fd, const struct io_addr *peer)
{
    ASSERT(node->is_open);
    MAYBE(client_create(node, fd, peer) != NULL);
}

void node_drain(struct node *node)
{
    node->is_draining = true;
    if (node->engine == NULL)
        return;
    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        client_drain(client_of_session(CONTAINER_OF(at, struct session, node)));
    }
    io_wake(node->io);
}

bool node_is_drained(const struct node *node)
{
    return node->is_draining && node_client_count(node) == 0;
}

void node_apply(struct node *node, struct bytes setting)
{
    const char *blank = setting.len > 0 ? memchr(setting.data, ' ', setting.len) : NULL;

    if (blank != NULL)
        settings_take(node->engine, bytes_first(setting, (size_t)(blank - setting.data)),
                      bytes_skip(setting, (size_t)(blank - setting.data) + 1));
}

struct settings *node_settings_copy(const struct node *node)
{
    return settings_copy(node->engine->settings);
}

void node_settings_set(struct node *node, struct settings **settings)
{
    settings_replace(node->engine, settings);
}

uint64_t node_key_count(const struct node *node)
{
    uint64_t count = 0;

    for (uint8_t db = 0; db < STORE_DBS; db++)
        count += store_count(node->store, db);
    return count;
}

uint32_t node_client_count(const struct node *node)
{
    return node->engine != NULL ? node->engine->session_count : 0;
}

const struct node_turns *node_turns(const struct node *node)
{
    return &node->turns;
}

struct engine *node_engine(struct node *node)
{
    return node->engine;
}

struct store *node_store(struct node *node)
{
    return node->store;
}
