/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MULTI, EXEC, DISCARD, WATCH, UNWATCH.
 *
 *   M1  All that EXEC runs is one unit of recovery, and no other client's command runs in between.
 *   M2  EXEC fetches the cold values of all its commands before it runs the first. A value that only shows
 *       in the middle (SORT ... BY), or that does not fit with the others into memory, is waited for with
 *       everybody else held (engine->exclusive); what was composed so far is kept in `out`.
 *   M3  A watched key that was changed, removed, or has expired since WATCH makes EXEC answer nil.
 *   M4  What has begun is run to its end, also when its client goes away meanwhile (engine->orphan takes its
 *       place): nobody ever sees half of it, in memory, in a checkpoint or after a recovery. Nothing else changes
 *       anything meanwhile: waiters for keys are served behind it, timers of ours that write wait for its end, the
 *       store's work rests, its clock stands, and a node that is to stop waits for it.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/keymap.h"
#include "backend/cmd/move.h"
#include "backend/cmd/pubsub.h"

#include "common/base/mem.h"

#include <stdio.h>

#define QUEUE_COUNT_MAX  (1u << 20)
#define QUEUE_BYTES_MAX  (512u << 20)
#define FETCH_ROUNDS_MAX 64u

struct watch_key {
    struct keymap_node node;
    struct list watchers; /* of struct watch */
};

struct watch {
    struct list_node node; /* of watch_key */
    struct watch *next;    /* of the session's */
    struct watch_key *key;
    struct session *session;
    bool has_existed;
};

struct watch_table {
    struct keymap keys;
};

struct queued {
    const struct command *info;
    struct bytes *argv; /* owns, with the bytes behind */
    uint32_t argc;
};

struct transaction {
    struct queued *items; /* owns */
    uint32_t count, cap, flags;
    size_t bytes, watch_bytes;
    struct watch *watches; /* owns */
    bool is_open;    /* MULTI */
    bool is_spoiled; /* a command was refused */
    bool is_dirty;   /* a watched key was touched */
    bool has_begun;  /* EXEC is at item `next` and waits for a value */
    uint32_t next, fetch_rounds;
    struct outbuf out; /* of the commands before `next` */
};

int watch_table_create(struct watch_table **out)
{
    struct watch_table *table = mem_zalloc(sizeof(*table));

    if (table == NULL)
        return -ENOMEM;
    keymap_init(&table->keys, 0);
    *out = table;
    return 0;
}

void watch_table_destroy(struct watch_table **table)
{
    if (*table == NULL)
        return;
    keymap_deinit(&(*table)->keys);
    mem_free(*table);
    *table = NULL;
}

/* ---- what CLIENT LIST asks ----------------------------------------------------------------------------- */

bool transaction_is_open(const struct session *session)
{
    return session->transaction != NULL && session->transaction->is_open;
}

uint32_t transaction_flags(const struct session *session)
{
    return session->transaction->flags;
}

int64_t transaction_count(const struct session *session)
{
    return transaction_is_open(session) ? (int64_t)session->transaction->count : -1;
}

size_t transaction_bytes(const struct session *session)
{
    return session->transaction != NULL ? session->transaction->bytes : 0;
}

size_t transaction_watch_bytes(const struct session *session)
{
    return session->transaction != NULL ? session->transaction->watch_bytes : 0;
}

bool transaction_is_dirty(const struct session *session)
{
    return session->transaction != NULL && session->transaction->is_dirty;
}

/* ---- life ------------------------------------------------------------------------------------------------ */

static struct transaction *transaction_get(struct session *session)
{
    if (session->transaction == NULL)
        session->transaction = mem_zalloc(sizeof(*session->transaction));
    return session->transaction;
}

static void watches_forget(struct session *session)
{
    struct transaction *transaction = session->transaction;

    while (transaction->watches != NULL) {
        struct watch *watch = transaction->watches;

        transaction->watches = watch->next;
        list_remove(&watch->node);
        if (list_is_empty(&watch->key->watchers)) {
            keymap_remove(&session->engine->watches->keys, &watch->key->node);
            mem_free(watch->key);
        }
        mem_free(watch);
    }
    transaction->watch_bytes = 0;
    transaction->is_dirty = false;
}

void transaction_forget(struct session *session)
{
    struct transaction *transaction = session->transaction;

    if (transaction == NULL)
        return;
    watches_forget(session);
    for (uint32_t i = 0; i < transaction->count; i++)
        mem_free(transaction->items[i].argv);
    mem_free(transaction->items);
    outbuf_clear(&session->engine->chunks, &transaction->out);
    session->transaction = NULL;
    mem_free(transaction);
}

void transaction_spoil(struct session *session)
{
    if (transaction_is_open(session))
        session->transaction->is_spoiled = true;
}

void transaction_refuse(struct cmd *c, const char *why)
{
    transaction_forget(c->session);
    reply_error_format(c, "EXECABORT Transaction discarded because of: %s", why);
}

/* ---- the queue -------------------------------------------------------------------------------------------- */

static bool queue_push_words(struct transaction *transaction, const struct cmd *c)
{
    size_t size = c->argc * sizeof(struct bytes);
    struct queued *queued;
    char *at;

    for (uint32_t i = 0; i < c->argc; i++)
        size += c->argv[i].len;
    if (transaction->count == QUEUE_COUNT_MAX || transaction->bytes + size > QUEUE_BYTES_MAX)
        return false;
    if (transaction->count == transaction->cap) {
        uint32_t cap = MAX(transaction->cap * 2, 8u);
        struct queued *items = mem_realloc(transaction->items, cap * sizeof(*items));

        if (items == NULL)
            return false;
        transaction->items = items;
        transaction->cap = cap;
    }
    queued = &transaction->items[transaction->count];
    queued->info = c->info;
    queued->argc = c->argc;
    queued->argv = mem_alloc(size);
    if (queued->argv == NULL)
        return false;
    at = (char *)(queued->argv + c->argc);
    for (uint32_t i = 0; i < c->argc; i++) {
        if (c->argv[i].len > 0)
            memcpy(at, c->argv[i].data, c->argv[i].len);
        queued->argv[i] = bytes_of(at, c->argv[i].len);
        at += c->argv[i].len;
    }
    transaction->count++;
    transaction->bytes += size;
    transaction->flags |= c->info->flags;
    return true;
}

void transaction_queue(struct cmd *c)
{
    struct transaction *transaction = c->session->transaction;

    /* It will not run: what follows need not be kept, but is still answered as Redis does. */
    if (!transaction->is_spoiled && !transaction->is_dirty && !queue_push_words(transaction, c)) {
        transaction->is_spoiled = true;
        cmd_out_of_memory(c);
        return;
    }
    reply_status(c, "QUEUED");
}

void cmd_multi(struct cmd *c)
{
    struct transaction *transaction;

    if (transaction_is_open(c->session)) {
        reply_error(c, "ERR MULTI calls can not be nested");
        return;
    }
    transaction = transaction_get(c->session);
    if (transaction == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    transaction->is_open = true;
    reply_ok(c);
}

void cmd_discard(struct cmd *c)
{
    if (!transaction_is_open(c->session)) {
        reply_error(c, "ERR DISCARD without MULTI");
        return;
    }
    transaction_forget(c->session);
    reply_ok(c);
}

/* ---- watches ------------------------------------------------------------------------------------------------ */

static struct watch_key *watch_key_get(struct watch_table *table, uint8_t db, struct bytes name)
{
    struct keymap_node *node = keymap_find(&table->keys, db, name);
    struct watch_key *key;

    if (node != NULL)
        return CONTAINER_OF(node, struct watch_key, node);
    key = mem_zalloc(sizeof(*key));
    if (key == NULL)
        return NULL;
    list_init(&key->watchers);
    if (!keymap_insert(&table->keys, &key->node, db, name)) {
        mem_free(key);
        return NULL;
    }
    return key;
}

static bool is_watched_by(const struct transaction *transaction, const struct watch_key *key)
{
    for (const struct watch *watch = transaction->watches; watch != NULL; watch = watch->next)
        if (watch->key == key)
            return true;
    return false;
}

static bool watch_add(struct cmd *c, struct transaction *transaction, struct bytes name)
{
    struct watch_key *key = watch_key_get(c->engine->watches, c->db, name);
    struct store_key found;
    struct watch *watch;

    if (key == NULL)
        return false;
    if (is_watched_by(transaction, key))
        return true;
    watch = mem_zalloc(sizeof(*watch));
    if (watch == NULL) {
        if (list_is_empty(&key->watchers)) {
            keymap_remove(&c->engine->watches->keys, &key->node);
            mem_free(key);
        }
        return false;
    }
    store_find(c->store, c->db, name, &found);
    watch->has_existed = found.entry != NULL;
    watch->key = key;
    watch->session = c->session;
    list_push_back(&key->watchers, &watch->node);
    watch->next = transaction->watches;
    transaction->watches = watch;
    transaction->watch_bytes += sizeof(*watch) + sizeof(*key) + name.len;
    return true;
}

void cmd_watch(struct cmd *c)
{
    struct transaction *transaction;

    if (transaction_is_open(c->session)) {
        reply_error(c, "ERR WATCH inside MULTI is not allowed");
        return;
    }
    transaction = transaction_get(c->session);
    for (uint32_t i = 1; transaction != NULL && !transaction->is_dirty && i < c->argc; i++) {
        if (!watch_add(c, transaction, c->argv[i])) {
            cmd_out_of_memory(c);
            return;
        }
    }
    if (transaction == NULL)
        cmd_out_of_memory(c);
    else
        reply_ok(c);
}

void cmd_unwatch(struct cmd *c)
{
    if (c->session->transaction != NULL) {
        watches_forget(c->session);
        if (!c->session->transaction->is_open)
            transaction_forget(c->session);
    }
    reply_ok(c);
}

static void watchers_touch(struct engine *engine, uint8_t db, struct bytes name, bool is_for_all)
{
    struct keymap_node *node = keymap_find(&engine->watches->keys, db, name);

    if (LIKELY(node == NULL))
        return;
    LIST_FOR_EACH(&CONTAINER_OF(node, struct watch_key, node)->watchers, watcher)
    {
        struct watch *watch = CONTAINER_OF(watcher, struct watch, node);

        if (is_for_all || watch->has_existed)
            watch->session->transaction->is_dirty = true;
    }
}

void watch_changed(struct engine *engine, uint8_t db, struct bytes name)
{
    watchers_touch(engine, db, name, true);
}

/* To who saw no key there is none still: SWAPDB brought one whose time had passed already. */
void watch_expired(struct engine *engine, uint8_t db, struct bytes name)
{
    watchers_touch(engine, db, name, false);
}

void watch_flushed(struct engine *engine, uint8_t db)
{
    LIST_FOR_EACH(&engine->sessions, node)
    {
        struct transaction *transaction = CONTAINER_OF(node, struct session, node)->transaction;
        struct watch *watch = transaction != NULL ? transaction->watches : NULL;

        /* Had it come or gone since WATCH, it would be dirty already. */
        for (; watch != NULL; watch = watch->next)
            if (watch->has_existed && (db == STORE_DBS || watch->key->node.db == db))
                transaction->is_dirty = true;
    }
}

static bool is_in_either(struct engine *engine, uint8_t a, uint8_t b, struct bytes name)
{
    struct store_key found;

    store_find(engine->store, a, name, &found);
    if (found.entry == NULL)
        store_find(engine->store, b, name, &found);
    return found.entry != NULL;
}

void watch_swapped(struct engine *engine, uint8_t a, uint8_t b)
{
    LIST_FOR_EACH(&engine->sessions, node)
    {
        struct transaction *transaction = CONTAINER_OF(node, struct session, node)->transaction;
        struct watch *watch = transaction != NULL ? transaction->watches : NULL;

        for (; watch != NULL && !transaction->is_dirty; watch = watch->next) {
            const struct keymap_node *key = &watch->key->node;

            if ((key->db == a || key->db == b) && (watch->has_existed || is_in_either(engine, a, b, key->name)))
                transaction->is_dirty = true;
        }
    }
}

/* Keys whose time has passed unseen. */
static void watches_look(struct cmd *c, struct transaction *transaction)
{
    for (struct watch *watch = transaction->watches; watch != NULL; watch = watch->next) {
        struct store_key found;

        if (!watch->has_existed)
            continue;
        store_find(c->store, watch->key->node.db, watch->key->node.name, &found);
        if (found.entry == NULL)
            transaction->is_dirty = true;
    }
}

/* ---- EXEC ---------------------------------------------------------------------------------------------------- */

static void queued_init(struct cmd *q, const struct cmd *c, const struct queued *queued)
{
    cmd_init(q, c->session, queued->argv, queued->argc);
    q->info = queued->info;
    q->in_exec = true;
}

/* True: the session waits, or EXEC was refused. */
static bool exec_fetch(struct cmd *c, struct transaction *transaction)
{
    uint8_t db = c->session->db; /* as SELECT inside will have it */

    if (transaction->fetch_rounds++ == FETCH_ROUNDS_MAX)
        return false; /* M2: more than memory holds */
    for (uint32_t i = 0; i < transaction->count; i++) {
        struct cmd q;
        int64_t selected;

        queued_init(&q, c, &transaction->items[i]);
        if (q.info->id == COMMAND_select && bytes_to_i64(q.argv[1], &selected) && selected >= 0 &&
            selected < (int64_t)STORE_DBS)
            db = (uint8_t)selected;
        q.db = db;
        fetch_add(&q);
        if (q.abort_error != NULL)
            c->abort_error = q.abort_error;
    }
    if (LIKELY(c->session->fetches == NULL && c->abort_error == NULL && c->session->fetch_error == 0))
        return false;
    c->is_parked = fetch_wait(c);
    if (!c->is_parked) {
        const char *why = c->abort_error;

        c->abort_error = NULL;
        transaction_refuse(c, why);
    }
    return true;
}

/* False: waits in the middle. SELECT inside changes the database of what follows. */
static bool exec_items(struct cmd *c, struct transaction *transaction)
{
    while (transaction->next < transaction->count) {
        struct cmd q;

        queued_init(&q, c, &transaction->items[transaction->next]);
        if (!dispatch_run(&q))
            return false;
        transaction->next++;
        /* RESET and QUIT are not queued, so the queue is still there. */
        ASSERT(c->session->transaction == transaction);
    }
    return true;
}

static void exec_run(struct cmd *c, struct transaction *transaction)
{
    struct session *session = c->session;
    struct outbuf before = session->out;

    session->out = transaction->out;
    transaction->out = (struct outbuf){0};
    if (!transaction->has_begun) {
        transaction->has_begun = true;
        store_atomic_begin(c->store);
        reply_array(c, transaction->count);
    }
    if (exec_items(c, transaction)) {
        struct outbuf replies = session->out;

        session->out = before;
        outbuf_splice(&session->out, &replies);
        store_atomic_end(c->store);
        c->engine->exclusive = NULL;
        transaction_forget(session);
        if (!list_is_empty(&c->engine->paused) && c->engine->pause == ENGINE_PAUSE_NONE)
            sessions_resume(&c->engine->paused);
        return;
    }
    transaction->out = session->out;
    session->out = before;
    c->engine->exclusive = session;
    c->is_parked = true;
}

/* ---- a client that leaves in the middle: M4 --------------------------------------------------------------- */

static void orphan_dirty(struct session *session)
{
    MAYBE(outbuf_is_empty(&session->out));
}

static void orphan_resume(struct session *session)
{
    struct engine *engine = session->engine;

    io_timer_start(engine->io, &engine->orphan_timer, 0);
}

static void orphan_kill(struct session *session)
{
    ASSERT(session->is_killed);
}

static const struct session_io orphan_io = {
    .dirty = orphan_dirty,
    .resume = orphan_resume,
    .kill = orphan_kill,
};

void exec_orphan_run(struct io_timer *timer)
{
    struct engine *engine = timer->arg;
    const struct bytes word = BYTES("exec");

    if (engine_execute(&engine->orphan, &word, 1) == CMD_PARKED)
        return;
    exec_orphan_forget(engine);
    io_wake(engine->io); /* for the turn's end: the frame, and who was held */
}

void exec_orphan_forget(struct engine *engine)
{
    struct session *orphan = &engine->orphan;

    io_timer_stop(&engine->orphan_timer);
    if (orphan->engine == NULL)
        return;
    transaction_forget(orphan);
    fetch_forget(orphan);
    if (orphan->subscriptions != NULL)
        pubsub_session_clear(orphan);
    outbuf_clear(&engine->chunks, &orphan->out);
    mem_free(orphan->name);
    mem_free(orphan->lib_name);
    mem_free(orphan->lib_version);
    *orphan = (struct session){0};
}

/* It is in no list: it is no client any more. Replies go nowhere, as it is killed. */
void exec_leave(struct session *session)
{
    struct engine *engine = session->engine;
    struct session *orphan = &engine->orphan;
    bool is_waiting = session->fetches != NULL;

    ASSERT(engine->exclusive == session && orphan->engine == NULL);
    ASSERT(session->blocked == NULL && session->is_killed);
    *orphan = *session;
    orphan->io = &orphan_io;
    orphan->node = orphan->park_node = (struct list_node){0};
    orphan->out = (struct outbuf){0};
    orphan->subscriptions = NULL;
    orphan->fetches = NULL;
    orphan->fd = -1;
    session->transaction = NULL;
    session->name = session->lib_name = session->lib_version = NULL;
    fetch_move(session, orphan);
    outbuf_clear(&engine->chunks, &orphan->transaction->out);
    engine->exclusive = orphan;
    if (!is_waiting)
        orphan_resume(orphan); /* its value had come, and it was just to go on */
}

/* ---- EXEC itself -------------------------------------------------------------------------------------------- */

void cmd_exec(struct cmd *c)
{
    struct transaction *transaction = c->session->transaction;

    if (!transaction_is_open(c->session)) {
        reply_error(c, "ERR EXEC without MULTI");
        return;
    }
    if (transaction->has_begun) {
        exec_run(c, transaction);
        return;
    }
    watches_look(c, transaction);
    if (transaction->is_spoiled) {
        transaction_forget(c->session);
        reply_error(c, "EXECABORT Transaction discarded because of previous errors.");
        return;
    }
    if (transaction->is_dirty) {
        /* The answer tells of a change that may not be committed yet. */
        session_hold(c->session, store_lsn(c->store));
        transaction_forget(c->session);
        reply_null_array(c);
        return;
    }
    if (UNLIKELY(exec_fetch(c, transaction)))
        return;
    /* Nobody watches from here on: its own changes make nothing dirty. */
    watches_forget(c->session);
    exec_run(c, transaction);
}

/* ---- to another process ------------------------------------------------------------------------------------- */

void move_put(struct buffer *out, const struct bytes *argv, uint32_t argc)
{
    buffer_append_format(out, "*%u\r\n", argc);
    for (uint32_t i = 0; i < argc; i++) {
        buffer_append_format(out, "$%zu\r\n", argv[i].len);
        buffer_append(out, argv[i].data, argv[i].len);
        buffer_append_string(out, "\r\n");
    }
}

void transaction_pack_watches(const struct session *session, struct buffer *out)
{
    const struct transaction *transaction = session->transaction;

    if (transaction == NULL)
        return;
    for (const struct watch *watch = transaction->watches; watch != NULL; watch = watch->next) {
        const struct keymap_node *key = &watch->key->node;
        char db[8];
        int len = snprintf(db, sizeof(db), "%u", key->db);

        move_put(out, (struct bytes[]){BYTES("SELECT"), bytes_of(db, (size_t)len)}, 2);
        move_put(out, (struct bytes[]){BYTES("WATCH"), key->name}, 2);
    }
}

void transaction_pack_queue(const struct session *session, struct buffer *out)
{
    const struct transaction *transaction = session->transaction;

    if (!transaction_is_open(session))
        return;
    move_put(out, (struct bytes[]){BYTES("MULTI")}, 1);
    for (uint32_t i = 0; i < transaction->count; i++)
        move_put(out, transaction->items[i].argv, transaction->items[i].argc);
}

void move_pack(const struct session *session, struct buffer *out)
{
    transaction_pack_watches(session, out);
    pubsub_pack(session, out);
    transaction_pack_queue(session, out);
}

uint8_t move_flags(const struct session *session)
{
    const struct transaction *transaction = session->transaction;

    if (transaction == NULL)
        return 0;
    return (uint8_t)((transaction->is_spoiled ? MOVE_SPOILED : 0) | (transaction->is_dirty ? MOVE_DIRTY : 0));
}

uint32_t move_watched_existing(const struct session *session)
{
    uint32_t count = 0;

    for (const struct watch *watch = session->transaction != NULL ? session->transaction->watches : NULL;
         watch != NULL; watch = watch->next)
        count += watch->has_existed;
    return count;
}

bool move_flags_set(struct session *session, uint8_t flags, uint32_t watched_existing)
{
    struct transaction *transaction;

    if (flags == 0 && watched_existing == 0)
        return true;
    transaction = transaction_get(session);
    if (transaction == NULL)
        return false;
    transaction->is_spoiled |= (flags & MOVE_SPOILED) != 0;
    transaction->is_dirty |= (flags & MOVE_DIRTY) != 0 || move_watched_existing(session) < watched_existing;
    return true;
}
