/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_world.h - commands on a store without a disk, as a client of RESP sees them.
 *
 *     world_open(&w);
 *     world_ask(&w, "SET a 1", "+OK\r\n");
 *
 * Words are parted by blanks; WORLD_BYTES for others. A command that waits has answered "".
 */
#pragma once
#include "tests/unit/test.h"

#include "backend/cmd/cmd.h"
#include "backend/cmd/engine.h"
#include "backend/types/types.h"
#include "common/base/mem.h"
#include "common/io/io_sim.h"

#define WORLD_WORDS_MAX 64u

struct cmd_world {
    struct sim *sim;
    struct sim_node *node;
    struct store *store;
    struct engine *engine;
    struct session session;
    char *reply; /* of the last command */
    size_t reply_len;
    int err;
    bool is_told;
};

static inline void world_ignore(struct session *session)
{
    (void)session;
}

static inline void world_opened(void *arg, int err)
{
    struct cmd_world *w = arg;

    w->err = err;
    w->is_told = true;
}

static inline void world_changed(void *arg, uint8_t db, struct bytes key, enum store_change_kind kind)
{
    struct cmd_world *w = arg;

    if (w->engine != NULL)
        engine_changed(w->engine, db, key, kind);
}

static inline void world_flushed(void *arg, uint8_t db)
{
    engine_flushed(((struct cmd_world *)arg)->engine, db);
}

static inline void world_open(struct cmd_world *w)
{
    static const struct session_io session_io = {world_ignore, world_ignore, world_ignore};
    struct store_options options = {
        .shard_count = 1,
        .types = {[STORE_STRING] = &string_ops, [STORE_LIST] = &list_ops, [STORE_SET] = &set_ops,
                  [STORE_ZSET] = &zset_ops, [STORE_HASH] = &hash_ops},
        .hooks = {.arg = w, .changed = world_changed, .flushed = world_flushed},
    };
    struct engine_options engine_options = {.shard_count = 1, .clients_max = 10};

    memset(w, 0, sizeof(*w));
    w->sim = sim_create(1, NULL);
    w->node = sim_node_create(w->sim, "node");
    options.io = engine_options.io = sim_node_io(w->node);
    assert_int_equal(store_create(&options, world_opened, w, &w->store), 0);
    assert_true(w->is_told);
    assert_int_equal(w->err, 0);
    engine_options.store = w->store;
    assert_int_equal(engine_create(&engine_options, &w->engine), 0);
    session_init(&w->session, w->engine, &session_io);
    w->session.resp = 2;
    w->session.is_authenticated = true;
}

static inline void world_close(struct cmd_world *w)
{
    session_deinit(&w->session);
    engine_destroy(&w->engine);
    w->is_told = false;
    store_close(w->store, world_opened, w);
    store_destroy(&w->store);
    sim_destroy(&w->sim);
    mem_free(w->reply);
}

/* What the session has said goes to w->reply. */
static inline void world_take_reply(struct cmd_world *w)
{
    size_t at = 0;

    engine_turn_end(w->engine);
    mem_free(w->reply);
    w->reply_len = w->session.out.len;
    w->reply = must_alloc(w->reply_len + 1);
    for (const struct chunk *chunk = w->session.out.first; chunk != NULL; chunk = chunk->next) {
        memcpy(w->reply + at, chunk_bytes(chunk), chunk->end - chunk->start);
        at += chunk->end - chunk->start;
    }
    w->reply[at] = '\0';
    outbuf_clear(&w->engine->chunks, &w->session.out);
}

static inline void world_run(struct cmd_world *w, const struct bytes *words, uint32_t count)
{
    (void)engine_execute(&w->session, words, count);
    world_take_reply(w);
}

static inline uint32_t world_words(const char *text, struct bytes words[WORLD_WORDS_MAX])
{
    uint32_t count = 0;

    for (const char *end; *text != '\0'; text = *end == '\0' ? end : end + 1) {
        end = strchr(text, ' ') != NULL ? strchr(text, ' ') : text + strlen(text);
        assert_true(count < WORLD_WORDS_MAX);
        words[count++] = bytes_of(text, (size_t)(end - text));
    }
    return count;
}

static inline void world_ask_(struct cmd_world *w, const char *text, const char *reply, const char *file, int line)
{
    struct bytes words[WORLD_WORDS_MAX];
    uint32_t count = world_words(text, words);

    world_run(w, words, count);
    if (strcmp(w->reply, reply) != 0)
        print_message("# %s\n", text);
    _assert_string_equal(w->reply, reply, file, line);
}
#define world_ask(w, text, reply) world_ask_(w, text, reply, __FILE__, __LINE__)

/* The same with any bytes in the last word. */
static inline void world_put_(struct cmd_world *w, const char *text, struct bytes last, const char *reply,
                              const char *file, int line)
{
    struct bytes words[WORLD_WORDS_MAX + 1];
    uint32_t count = world_words(text, words);

    words[count] = last;
    world_run(w, words, count + 1);
    _assert_string_equal(w->reply, reply, file, line);
}
#define world_put(w, text, last, reply) world_put_(w, text, last, reply, __FILE__, __LINE__)
