/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for keys: BLPOP and its like.
 *
 *     cmd_block() ──> table: (db, key) -> waiters, first come first served
 *     a key that has waiters changes ──> ready ──> blocked_serve(), right behind the command that changed it
 *
 *   K1  The one who has waited longest is served first; nobody else's command runs between the change and
 *       the service, so no other client sees the element that a waiter gets. If its command needs a cold value (of the
 *       key that BLMOVE moves to) those who wait behind it do so until it has run again; who had not waited does not.
 *   K2  To serve is to run the waiter's own command, from a copy of its words, as its bytes lie in its
 *       connection; the connection then consumes the request without running it again.
 *   K3  A waiter whose command still finds nothing keeps its place and its deadline.
 *   K4  A key of another type wakes nobody.
 *   K5  What an EXEC changes wakes when the whole of it is done, also if it waits for a value in the middle.
 *   K6  Of several keys that an EXEC has filled a waiter gets that which was changed first, whatever the order of its
 *       words: who waits for another of them alone is not left without.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/keymap.h"

#include "common/base/mem.h"

struct blocked_key {
    struct keymap_node node;
    struct list waiters;         /* of blocked_link, in the order in which they came */
    struct list_node ready_node; /* of table->ready */
    bool is_serving;             /* not to be freed now */
    const struct blocked *last;  /* who joined last: to see a key that is named twice */
};

struct blocked_link {
    struct list_node node;
    struct blocked_key *key; /* NULL: not linked */
    struct blocked *owner;
};

struct blocked_table {
    struct keymap keys;
    struct list ready;
};

struct blocked {
    struct session *session; /* borrows */
    struct io_timer timer;
    void (*timed_out)(struct cmd *c);
    const struct command *info;
    struct bytes *argv; /* owns, with the bytes behind */
    uint32_t argc;
    uint32_t keys_first, keys_count; /* among argv */
    uint32_t links_count;
    bool has_timed_out, with_error, is_served;
    bool has_turn; /* K1: a value is on its way to it, and those behind it wait */
    struct blocked_link links[];
};

int blocked_table_create(struct blocked_table **out)
{
    struct blocked_table *table = mem_zalloc(sizeof(*table));

    if (table == NULL)
        return -ENOMEM;
    keymap_init(&table->keys, 0);
    list_init(&table->ready);
    *out = table;
    return 0;
}

void blocked_table_destroy(struct blocked_table **table)
{
    if (*table == NULL)
        return;
    keymap_deinit(&(*table)->keys);
    mem_free(*table);
    *table = NULL;
}

/* ---- links ------------------------------------------------------------------------------------------ */

static void key_put(struct blocked_table *table, struct blocked_key *key)
{
    if (!list_is_empty(&key->waiters) || key->is_serving)
        return;
    if (list_node_is_linked(&key->ready_node))
        list_remove(&key->ready_node);
    keymap_remove(&table->keys, &key->node);
    mem_free(key);
}

static struct blocked_key *key_get(struct blocked_table *table, uint8_t db, struct bytes name)
{
    struct keymap_node *node = keymap_find(&table->keys, db, name);
    struct blocked_key *key;

    if (node != NULL)
        return CONTAINER_OF(node, struct blocked_key, node);
    key = mem_zalloc(sizeof(*key));
    if (key == NULL)
        return NULL;
    list_init(&key->waiters);
    if (!keymap_insert(&table->keys, &key->node, db, name)) {
        mem_free(key);
        return NULL;
    }
    return key;
}

static bool link_key(struct blocked_table *table, struct blocked *blocked, uint8_t db, struct bytes name)
{
    struct blocked_key *key = key_get(table, db, name);
    struct blocked_link *link;

    if (key == NULL)
        return false;
    if (key->last == blocked)
        return true;
    key->last = blocked;
    link = &blocked->links[blocked->links_count++];
    link->key = key;
    link->owner = blocked;
    list_push_back(&key->waiters, &link->node);
    return true;
}

static void key_ready(struct engine *engine, struct blocked_key *key)
{
    if (list_node_is_linked(&key->ready_node))
        return;
    list_push_back(&engine->blocked->ready, &key->ready_node);
    engine->has_ready_keys = true;
}

/* Those behind it are served next. */
static void turn_over(struct engine *engine, struct blocked *blocked)
{
    if (!blocked->has_turn)
        return;
    blocked->has_turn = false;
    for (uint32_t i = 0; i < blocked->links_count; i++)
        key_ready(engine, blocked->links[i].key);
}

static void unlink_all(struct engine *engine, struct blocked *blocked)
{
    struct blocked_table *table = engine->blocked;

    turn_over(engine, blocked);
    for (uint32_t i = 0; i < blocked->links_count; i++) {
        struct blocked_key *key = blocked->links[i].key;

        list_remove(&blocked->links[i].node);
        if (key->last == blocked)
            key->last = NULL;
        key_put(table, key);
    }
    blocked->links_count = 0;
}

/* ---- to wait ------------------------------------------------------------------------------------------ */

static void wake(struct blocked *blocked)
{
    struct session *session = blocked->session;

    unlink_all(session->engine, blocked);
    io_timer_stop(&blocked->timer);
    session->is_parked = false;
    session->io->resume(session);
}

static void timer_fired(struct io_timer *timer)
{
    struct blocked *blocked = timer->arg;

    blocked->has_timed_out = true;
    wake(blocked);
}

/* The words and their bytes in one run. */
static bool copy_words(struct blocked *blocked, const struct cmd *c)
{
    size_t size = c->argc * sizeof(struct bytes);
    char *at;

    for (uint32_t i = 0; i < c->argc; i++)
        size += c->argv[i].len;
    blocked->argv = mem_alloc(size);
    if (blocked->argv == NULL)
        return false;
    at = (char *)(blocked->argv + c->argc);
    for (uint32_t i = 0; i < c->argc; i++) {
        if (c->argv[i].len > 0)
            memcpy(at, c->argv[i].data, c->argv[i].len);
        blocked->argv[i] = bytes_of(at, c->argv[i].len);
        at += c->argv[i].len;
    }
    blocked->argc = c->argc;
    return true;
}

static bool block(struct cmd *c, struct blocked *blocked, uint32_t first, uint32_t count)
{
    if (!copy_words(blocked, c))
        return false;
    blocked->keys_first = first;
    blocked->keys_count = count;
    for (uint32_t i = 0; i < count; i++)
        if (!link_key(c->engine->blocked, blocked, c->db, c->argv[first + i]))
            return false;
    return true;
}

void cmd_block(struct cmd *c, uint32_t first, uint32_t count, uint64_t timeout_ms,
               void (*timed_out)(struct cmd *c))
{
    struct session *session = c->session;
    struct blocked *blocked = session->blocked;

    ASSERT(first + count <= c->argc);
    if (c->in_exec || (blocked != NULL && blocked->has_timed_out)) {
        timed_out(c);
        return;
    }
    c->is_parked = session->is_parked = true;
    fetch_settle(session);
    if (blocked != NULL) {
        turn_over(c->engine, blocked);
        return; /* K3 */
    }
    blocked = mem_zalloc(sizeof(*blocked) + count * sizeof(blocked->links[0]));
    if (blocked == NULL) {
        c->is_parked = session->is_parked = false;
        cmd_out_of_memory(c);
        return;
    }
    blocked->session = session;
    blocked->timed_out = timed_out;
    blocked->info = c->info;
    blocked->timer.fire = timer_fired;
    blocked->timer.arg = blocked;
    session->blocked = blocked;
    c->engine->blocked_count++;
    if (!block(c, blocked, first, count)) {
        blocked_forget(session);
        c->is_parked = session->is_parked = false;
        cmd_out_of_memory(c);
        return;
    }
    if (timeout_ms > 0)
        io_timer_start(c->engine->io, &blocked->timer, timeout_ms);
}

bool blocked_is_served(struct session *session)
{
    struct engine_counters *counters = &session->engine->counters;
    struct blocked *blocked = session->blocked;

    if (blocked->with_error) {
        counters->errors++;
        counters->per_command[blocked->info->id].calls++;
        counters->per_command[blocked->info->id].failed++;
        engine_error_note(session->engine, "UNBLOCKED");
        reply_raw(session, BYTES("-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"));
        return true;
    }
    return blocked->is_served;
}

void blocked_forget(struct session *session)
{
    struct blocked *blocked = session->blocked;

    if (blocked == NULL)
        return;
    session->blocked = NULL;
    session->engine->blocked_count--;
    unlink_all(session->engine, blocked);
    io_timer_stop(&blocked->timer);
    mem_free(blocked->argv);
    mem_free(blocked);
}

bool blocked_unblock(struct session *session, bool with_error)
{
    struct blocked *blocked = session->blocked;

    if (blocked == NULL || blocked->is_served || blocked->has_timed_out || blocked->with_error)
        return false;
    blocked->with_error = with_error;
    blocked->has_timed_out = !with_error;
    wake(blocked);
    return true;
}

/* ---- to be served --------------------------------------------------------------------------------------- */

void blocked_changed(struct engine *engine, uint8_t db, struct bytes name)
{
    struct keymap_node *node = keymap_find(&engine->blocked->keys, db, name);

    if (UNLIKELY(node != NULL))
        key_ready(engine, CONTAINER_OF(node, struct blocked_key, node));
}

void blocked_swapped(struct engine *engine, uint8_t a, uint8_t b)
{
    LIST_FOR_EACH(&engine->sessions, node)
    {
        const struct blocked *blocked = CONTAINER_OF(node, struct session, node)->blocked;

        for (uint32_t i = 0; blocked != NULL && i < blocked->links_count; i++) {
            const struct keymap_node *key = &blocked->links[i].key->node;

            if (key->db == a || key->db == b)
                blocked_changed(engine, key->db, key->name);
        }
    }
}

static enum store_type type_waited_for(const struct blocked *blocked)
{
    switch ((enum command_group)blocked->info->group) {
    case GROUP_LIST: return STORE_LIST;
    case GROUP_SORTED_SET: return STORE_ZSET;
    case GROUP_STREAM: return STORE_STREAM;
    case GROUP_STRING:
    case GROUP_BITMAP:
    case GROUP_HASH:
    case GROUP_SET:
    case GROUP_HYPERLOGLOG:
    case GROUP_GEO:
    case GROUP_GENERIC:
    case GROUP_TRANSACTIONS:
    case GROUP_PUBSUB:
    case GROUP_SCRIPTING:
    case GROUP_CONNECTION:
    case GROUP_SERVER:
    case GROUP_CLUSTER: return STORE_NONE;
    }
    UNREACHABLE("no such group");
}

/* K6: the command looks at its keys in the order of its words. */
static void key_to_front(struct blocked *blocked, struct bytes name)
{
    struct bytes *keys = blocked->argv + blocked->keys_first;
    uint32_t at = 0;

    while (!bytes_equal(keys[at], name)) {
        at++;
        ASSERT(at < blocked->keys_count);
    }
    for (; at > 0; at--) {
        struct bytes before = keys[at - 1];

        keys[at - 1] = keys[at];
        keys[at] = before;
    }
}

/* False: its command waits for a value. */
static bool serve_one(struct engine *engine, struct blocked *blocked, struct bytes name)
{
    struct session *session = blocked->session;
    struct cmd c;

    key_to_front(blocked, name);
    cmd_init(&c, session, blocked->argv, blocked->argc);
    c.info = blocked->info;
    if (!dispatch_run(&c))
        return session->fetches == NULL; /* K3; or a value is cold: then its connection runs it again */
    MAYBE(engine);
    blocked->is_served = true;
    session->io->dirty(session);
    wake(blocked);
    return true;
}

static void serve_key(struct engine *engine, struct blocked_key *key)
{
    key->is_serving = true;
    LIST_FOR_EACH(&key->waiters, node)
    {
        struct blocked *blocked = CONTAINER_OF(node, struct blocked_link, node)->owner;
        struct store_key found;

        store_find(engine->store, key->node.db, key->node.name, &found);
        if (found.entry == NULL)
            break;
        if (entry_type(found.entry) != type_waited_for(blocked))
            continue;
        if (blocked->session->fetches != NULL || !serve_one(engine, blocked, key->node.name)) {
            blocked->has_turn = true;
            break;
        }
    }
    key->is_serving = false;
    key_put(engine->blocked, key);
}

void blocked_serve(struct engine *engine)
{
    struct list_node *node;

    if (UNLIKELY(engine->exclusive != NULL))
        return; /* K5: has_ready_keys stays */
    while ((node = list_pop_front(&engine->blocked->ready)) != NULL)
        serve_key(engine, CONTAINER_OF(node, struct blocked_key, ready_node));
    engine->has_ready_keys = false;
}
