/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cold_world.h - commands on a store with a simulated disk: they wait for values, for the log, for room.
 */
#pragma once
#include "tests/unit/backend/cmd/cmd_world.h"

#include "common/io/io_sim_disk.h"

struct cold_world {
    struct cmd_world w;
    struct sim_node *node;
    bool is_resumed;
};

static inline void cold_resume(struct session *session)
{
    CONTAINER_OF(session, struct cold_world, w.session)->is_resumed = true;
}

static inline void cold_state(void *arg)
{
    struct cmd_world *w = arg;

    if (w->engine != NULL)
        engine_state(w->engine);
}

static const struct session_io cold_io = {world_ignore, cold_resume, world_ignore};

static inline void cold_open(struct cold_world *cw, uint64_t memory_max)
{
    struct cmd_world *w = &cw->w;
    struct store_options options = {
        .dir = "/data/shard-0",
        .shard_count = 1,
        .segment_size = 256u << 10,
        .ring_size = 1u << 20,
        .fsync = STORE_FSYNC_EVERYSEC,
        .memory_max = memory_max,
        .types = {[STORE_STRING] = &string_ops, [STORE_LIST] = &list_ops, [STORE_SET] = &set_ops,
                  [STORE_ZSET] = &zset_ops, [STORE_HASH] = &hash_ops},
        .hooks = {.arg = w, .changed = world_changed, .flushed = world_flushed, .state = cold_state},
    };
    struct engine_options engine_options = {.shard_count = 1, .clients_max = 10};

    options.io = engine_options.io = sim_node_io(cw->node);
    w->is_told = false;
    assert_int_equal(store_create(&options, world_opened, w, &w->store), 0);
    sim_run_while_not(w->sim, &w->is_told, 60000000);
    assert_true(w->is_told);
    assert_int_equal(w->err, 0);
    engine_options.store = w->store;
    assert_int_equal(engine_create(&engine_options, &w->engine), 0);
    session_init(&w->session, w->engine, &cold_io);
    w->session.is_authenticated = true;
}

static inline void cold_init(struct cold_world *cw, uint64_t memory_max)
{
    memset(cw, 0, sizeof(*cw));
    cw->w.sim = sim_create(1, NULL);
    cw->node = sim_node_create(cw->w.sim, "node");
    (void)sim_node_io(cw->node);
    sim_disk_mkdir(cw->node, "/data");
    cold_open(cw, memory_max);
}

static inline void cold_deinit(struct cold_world *cw)
{
    session_deinit(&cw->w.session);
    engine_destroy(&cw->w.engine);
    sim_node_kill(cw->node);
    store_destroy(&cw->w.store);
    sim_destroy(&cw->w.sim);
    mem_free(cw->w.reply);
}

/* Runs a command to its end, turn by turn. Its reply is w.reply. */
static inline void cold_run(struct cold_world *cw, const struct bytes *words, uint32_t count)
{
    for (unsigned round = 0; round < 500; round++) {
        cw->is_resumed = false;
        world_run(&cw->w, words, count);
        store_turn_end(cw->w.store);
        if (!cw->w.session.is_parked)
            return;
        for (unsigned i = 0; i < 10000 && !cw->is_resumed; i++)
            sim_run_for(cw->w.sim, 100);
        assert_true(cw->is_resumed);
        store_turn_end(cw->w.store);
    }
    fail_msg("a command waits for ever");
}

static inline void cold_ask(struct cold_world *cw, const char *text, const char *reply)
{
    struct bytes words[WORLD_WORDS_MAX];
    uint32_t count = world_words(text, words);

    cold_run(cw, words, count);
    if (strcmp(cw->w.reply, reply) != 0)
        print_message("# %s\n", text);
    assert_string_equal(cw->w.reply, reply);
}
