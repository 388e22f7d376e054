/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cold values: a command that needs some is parked, all of them are read at once, then it runs again.
 *
 *   F1  A session has at most one set under way. Its command runs again when the last value is there.
 *   F2  A set has at most FETCHES_MAX values: what a command needs beyond is fetched when it runs again.
 *   F3  A value that cannot be had is the command's error, told when it runs again; it never waits twice
 *       for the same.
 *   F5  While the command in front waits, what reads behind it in the pipeline will want is read, too: so a pipeline has
 *       as many reads under way as a command with many keys. That is a hint: an error is told to the command that meets
 *       it by itself. At most AHEAD_MAX values of all sessions are wanted so.
 *   F4  Values that together do not fit into memory would push each other out for ever: from its third round on
 *       a command has what is hot held.
 */
#include "backend/cmd/cmd_private.h"

#include "common/base/mem.h"

#define FETCHES_MAX 256u
#define ROUNDS_HOLD 3u
#define AHEAD_MAX   1024u

struct fetch_set {
    struct session *session; /* borrows */
    uint32_t count, left;
    struct store_waiter waiters[]; /* [count] of FETCHES_MAX are made */
};

static void fetch_one_done(struct store_waiter *waiter)
{
    struct fetch_set *set = waiter->arg;
    struct session *session = set->session;

    ASSERT(set->left > 0);
    waiter->arg = NULL;
    if (--set->left > 0)
        return;
    session->fetches = NULL;
    mem_free(set);
    session->is_parked = false;
    session->io->resume(session);
}

static void fetch_done(struct store_waiter *waiter, int err)
{
    struct fetch_set *set = waiter->arg;

    if (err != 0)
        set->session->fetch_error = err;
    fetch_one_done(waiter);
}

static void fetch_ahead_done(struct store_waiter *waiter, int err)
{
    struct fetch_set *set = waiter->arg;

    MAYBE(err);
    set->session->engine->fetches_ahead--;
    fetch_one_done(waiter);
}

static struct fetch_set *fetch_set_get(struct session *session)
{
    struct fetch_set *set = session->fetches;

    if (set != NULL)
        return set;
    set = mem_alloc(sizeof(*set) + FETCHES_MAX * sizeof(set->waiters[0]));
    if (set == NULL)
        return NULL;
    *set = (struct fetch_set){.session = session};
    session->fetches = set;
    return set;
}

/* The set has room. */
static void set_add(struct fetch_set *set, const struct store_key *key, void (*done)(struct store_waiter *, int))
{
    struct store_waiter *waiter = &set->waiters[set->count++];

    set->left++;
    *waiter = (struct store_waiter){.done = done, .arg = set};
    store_fetch(set->session->engine->store, key, waiter);
}

bool session_fetch(struct session *session, const struct store_key *key)
{
    struct fetch_set *set = fetch_set_get(session);

    if (set == NULL)
        return false;
    if (set->count < FETCHES_MAX)
        set_add(set, key, fetch_done);
    return true;
}

bool session_fetch_ahead(struct session *session, struct bytes name, struct bytes key, size_t *bytes)
{
    const struct command *info = command_find(name);
    struct engine *engine = session->engine;
    struct store_key found;

    if (session->fetches == NULL || session->fetches->count == FETCHES_MAX || engine->fetches_ahead == AHEAD_MAX)
        return false;
    if (info == NULL || !(info->flags & CMD_READ) || (info->flags & CMD_KEYS_ONLY) || info->keys.first != 1)
        return true;
    store_find(engine->store, session->db, key, &found);
    if (found.entry == NULL || !entry_is_cold(found.entry))
        return true;
    *bytes += entry_value_len(found.entry);
    engine->fetches_ahead++;
    set_add(session->fetches, &found, fetch_ahead_done);
    return true;
}

void fetch_add(struct cmd *c)
{
    struct command_keys keys;

    if (dispatch_keys_only(c) || command_keys(c->info, c->argv, c->argc, &keys) != 0)
        return;
    for (uint32_t r = 0; r < keys.range_count; r++)
        for (uint32_t i = 0; i < keys.ranges[r].count; i++) {
            struct store_key key;

            store_find(c->store, c->db, c->argv[keys.ranges[r].first + i * keys.ranges[r].step], &key);
            if (UNLIKELY(key.entry != NULL && entry_is_cold(key.entry)) && !session_fetch(c->session, &key))
                c->abort_error = ERROR_MEMORY;
        }
}

void fetch_round(struct session *session)
{
    if (session->fetch_rounds < ROUNDS_HOLD && ++session->fetch_rounds == ROUNDS_HOLD)
        store_hold_hot(session->engine->store, true);
}

void fetch_settle(struct session *session)
{
    if (session->fetch_rounds == ROUNDS_HOLD)
        store_hold_hot(session->engine->store, false);
    session->fetch_rounds = 0;
}

/* The end of looking for cold keys: an error of the last fetch is the answer. */
bool fetch_wait(struct cmd *c)
{
    struct session *session = c->session;

    if (session->fetch_error != 0 || c->abort_error != NULL) {
        if (c->abort_error == NULL)
            c->abort_error = ERROR_VALUE_DAMAGED;
        fetch_forget(session);
        return false;
    }
    c->engine->counters.parked_cold++;
    fetch_round(session);
    session->is_parked = true;
    return true;
}

bool fetch_start(struct cmd *c, const struct store_key *key)
{
    if (!session_fetch(c->session, key))
        c->abort_error = ERROR_MEMORY;
    else if (c->session->fetch_error == 0)
        fetch_add(c);
    return fetch_wait(c);
}

bool fetch_before(struct cmd *c)
{
    fetch_add(c);
    if (LIKELY(c->session->fetches == NULL && c->abort_error == NULL))
        return false;
    c->is_parked = fetch_wait(c);
    return true;
}

void fetch_move(struct session *from, struct session *to)
{
    ASSERT(to->fetches == NULL);
    to->fetches = from->fetches;
    to->fetch_error = from->fetch_error;
    to->fetch_rounds = from->fetch_rounds;
    if (to->fetches != NULL)
        to->fetches->session = to;
    from->fetches = NULL;
    from->fetch_error = 0;
    from->fetch_rounds = 0;
}

void fetch_forget(struct session *session)
{
    struct fetch_set *set = session->fetches;

    session->fetch_error = 0;
    fetch_settle(session);
    if (set == NULL)
        return;
    session->fetches = NULL;
    for (uint32_t i = 0; i < set->count; i++)
        if (set->waiters[i].arg != NULL) {
            session->engine->fetches_ahead -= set->waiters[i].done == fetch_ahead_done;
            store_fetch_cancel(&set->waiters[i]);
        }
    mem_free(set);
}
