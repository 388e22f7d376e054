/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/engine.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/settings.h"
#include "backend/cmd/latency.h"
#include "backend/cmd/mc.h"
#include "backend/cmd/pubsub.h"
#include "backend/cmd/slowlog.h"

#include "common/base/mem.h"

static void pause_over(struct io_timer *timer)
{
    engine_pause(timer->arg, ENGINE_PAUSE_NONE, 0);
}

static int engine_create_parts(struct engine *engine)
{
    int err = settings_create(&engine->options, &engine->settings);

    if (err == 0)
        err = watch_table_create(&engine->watches);
    if (err == 0)
        err = blocked_table_create(&engine->blocked);
    if (err == 0)
        err = pubsub_create(io_random64(engine->io), &engine->pubsub);
    if (err == 0)
        err = slow_log_create(&engine->slow_log);
    if (err == 0)
        err = latency_create(&engine->latency);
    if (err == 0)
        err = mc_create(engine, &engine->mc);
    return err;
}

int engine_create(const struct engine_options *options, struct engine **out)
{
    struct engine *engine = must_zalloc(sizeof(*engine));
    int err;

    engine->options = *options;
    engine->io = options->io;
    engine->log = options->log;
    engine->store = options->store;
    engine->run_id[0] = io_random64(options->io);
    engine->run_id[1] = io_random64(options->io);
    list_init(&engine->sessions);
    list_init(&engine->parked);
    list_init(&engine->paused);
    chunk_pools_init(&engine->chunks);
    engine->pause_timer.fire = pause_over;
    engine->pause_timer.arg = engine;
    engine->orphan_timer.fire = exec_orphan_run;
    engine->orphan_timer.arg = engine;
    engine_clock_read(engine);
    engine->started_ms = engine->now_ms; /* not the host's: that may be behind since before the start */
    err = engine_create_parts(engine);
    if (err != 0) {
        engine_destroy(&engine);
        return err;
    }
    *out = engine;
    return 0;
}

void engine_destroy(struct engine **engine)
{
    struct engine *e = *engine;

    if (e == NULL)
        return;
    ASSERT(list_is_empty(&e->sessions));
    io_timer_stop(&e->pause_timer);
    exec_orphan_forget(e);
    mc_destroy(&e->mc);
    latency_destroy(&e->latency);
    slow_log_destroy(&e->slow_log);
    pubsub_destroy(&e->pubsub);
    blocked_table_destroy(&e->blocked);
    watch_table_destroy(&e->watches);
    settings_destroy(&e->settings);
    chunk_pools_deinit(&e->chunks);
    mem_free(e);
    *engine = NULL;
}

uint64_t engine_clients_bytes(const struct engine *engine)
{
    return chunk_pools_bytes(&engine->chunks) + engine->inputs_bytes;
}

/* The store's clock never goes back (S8), so neither does ours. */
void engine_clock_read(struct engine *engine)
{
    store_now_set(engine->store, io_wall_us(engine->io) / 1000);
    engine->now_ms = store_now_ms(engine->store);
}

void engine_turn_begin(struct engine *engine)
{
    if (engine->is_turn_open)
        return;
    engine->is_turn_open = true;
    engine_clock_read(engine);
}

void engine_turn_end(struct engine *engine)
{
    if (UNLIKELY(engine->has_ready_keys)) {
        engine_turn_begin(engine); /* they may be of the turn before: a client was freed at its end */
        blocked_serve(engine);
    }
    engine->is_turn_open = false;
}

void engine_pause(struct engine *engine, enum engine_pause kind, uint64_t ms)
{
    io_timer_stop(&engine->pause_timer);
    engine->pause = (uint8_t)kind;
    engine->pause_until_ms = engine->now_ms + ms;
    if (kind == ENGINE_PAUSE_NONE)
        sessions_resume(&engine->paused);
    else
        io_timer_start(engine->io, &engine->pause_timer, ms);
}

/* ---- what the store tells ------------------------------------------------------------------------------ */

void engine_changed(struct engine *engine, uint8_t db, struct bytes key, enum store_change_kind kind)
{
    if (kind == STORE_EXPIRED)
        watch_expired(engine, db, key);
    else
        watch_changed(engine, db, key);
    switch (kind) {
    case STORE_CHANGED: blocked_changed(engine, db, key); break;
    case STORE_CREATED:
        blocked_changed(engine, db, key);
        pubsub_notify(engine, NOTIFY_NEW, "new", key, db);
        break;
    case STORE_REMOVED: break;
    case STORE_EXPIRED:
        engine->counters.expired++;
        pubsub_notify(engine, NOTIFY_EXPIRED, "expired", key, db);
        break;
    case STORE_EVICTED: pubsub_notify(engine, NOTIFY_EVICTED, "evicted", key, db); break;
    }
}

void engine_flushed(struct engine *engine, uint8_t db)
{
    watch_flushed(engine, db);
}

/* What a key is now shows what the swap did, and the key's own LSN does not say so. */
void engine_swapped(struct engine *engine, uint8_t a, uint8_t b)
{
    LIST_FOR_EACH (&engine->sessions, node) {
        session_hold(CONTAINER_OF(node, struct session, node), store_swap_lsn(engine->store));
    }
    watch_swapped(engine, a, b);
    blocked_swapped(engine, a, b);
}

void engine_state(struct engine *engine)
{
    if (!list_is_empty(&engine->parked))
        sessions_resume(&engine->parked);
}
