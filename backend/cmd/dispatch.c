/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its handler: the questions that Redis asks of every command, in its order, as the first
 * "no" is what the client reads.
 *
 *     row? subcommand? arity? ── authenticated? ── not in MULTI? ── memory, disk ── subscriber's mode
 *        ── paused? ── MULTI: queue it ── cold keys? ── run
 *
 *   D1  A command that is refused inside MULTI spoils the transaction; a refused EXEC ends it.
 *   D2  A command that parks has changed nothing and replies nothing (N1): what it composed is taken back.
 *       So commands that write and have several keys get their values before they start; all others find
 *       out by the look-up that they do anyway.
 *   D3  A command's records, or a whole EXEC's, are one unit of recovery.
 *
 * Time is measured for commands that may be slow and for one in TIMED_EVERY of the others, which stands for
 * all: two clock reads cost as much as a GET.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/latency.h"
#include "backend/cmd/pubsub.h"
#include "backend/cmd/settings.h"
#include "backend/cmd/slowlog.h"

#include <stdio.h>

#define TIMED_EVERY   64u
#define TIMED_ALL_BELOW_US 1000u /* with a slower-than of less the slow log is about fast ones too: all are timed */
#define TIMED_ARGUMENTS 64u /* so many arguments make a fast command slow */
#define RECORD_BESIDE 64u   /* bytes of a record beside a word of its command */
#define ECHO_MAX      128   /* bytes of a client's words in an error line */

/* ---- which command --------------------------------------------------------------------------------- */

void cmd_init(struct cmd *c, struct session *session, const struct bytes *argv, uint32_t argc)
{
    struct engine *engine = session->engine;

    c->engine = engine;
    c->store = engine->store;
    c->session = session;
    c->info = NULL;
    c->argv = argv;
    c->argc = argc;
    c->db = session->db;
    c->in_exec = false;
    c->is_parked = false;
    c->has_failed = false;
    c->keys_only = false;
    c->abort_error = NULL;
    c->now_ms = engine->now_ms;
    c->count_depth = 0;
}

/* As a C string would show it. */
static int echo_len(struct bytes word, size_t max)
{
    size_t len = MIN(word.len, max);
    const char *nul = len > 0 ? memchr(word.data, '\0', len) : NULL;

    return (int)(nul != NULL ? (size_t)(nul - word.data) : len);
}

static void reply_unknown_command(struct cmd *c)
{
    char args[ECHO_MAX * 2];
    size_t len = 0;

    for (uint32_t i = 1; i < c->argc && len < ECHO_MAX; i++)
        len += (size_t)snprintf(args + len, sizeof(args) - len, "'%.*s' ",
                                echo_len(c->argv[i], ECHO_MAX - len), c->argv[i].data);
    args[len] = '\0';
    reply_error_format(c, "ERR unknown command '%.*s', with args beginning with: %s",
                       echo_len(c->argv[0], ECHO_MAX), c->argv[0].data, args);
}

static void reply_unknown_subcommand(struct cmd *c, const struct command *parent)
{
    char name[32];
    size_t len = MIN((size_t)parent->name_len, sizeof(name) - 1);

    for (size_t i = 0; i < len; i++)
        name[i] = (char)(parent->name[i] - ('a' <= parent->name[i] && parent->name[i] <= 'z' ? 32 : 0));
    name[len] = '\0';
    reply_error_format(c, "ERR unknown subcommand '%.*s'. Try %s HELP.", echo_len(c->argv[1], ECHO_MAX),
                       c->argv[1].data, name);
}

bool cmd_find(struct cmd *c)
{
    const struct command *info = command_find(c->argv[0]);

    if (UNLIKELY(info == NULL || info->home == HOME_LATER)) {
        reply_unknown_command(c);
        return false;
    }
    if (UNLIKELY((info->flags & CMD_HAS_SUBCOMMANDS) && c->argc > 1)) {
        const struct command *sub = command_find_sub(info, c->argv[1]);

        if (sub == NULL || sub->home == HOME_LATER) {
            reply_unknown_subcommand(c, info);
            return false;
        }
        info = sub;
    }
    c->info = info;
    if (UNLIKELY(!command_arity_fits(info, c->argc))) {
        if (info->id == COMMAND_exec && transaction_is_open(c->session))
            transaction_refuse(c, "wrong number of arguments for 'exec' command");
        else
            reply_error_format(c, "ERR wrong number of arguments for '%s' command", info->name);
        return false;
    }
    return true;
}

/* ---- may it run ------------------------------------------------------------------------------------- */

const char *dispatch_write_error(const struct engine *engine, uint32_t flags, size_t bytes, bool *must_wait)
{
    size_t grows = (flags & CMD_DENYOOM) != 0 ? bytes : 0;
    int err = store_may_write(engine->store, grows);

    *must_wait = false;
    if (LIKELY(err == 0))
        return grows > 0 || LIKELY(store_may_delete(engine->store, bytes)) ? NULL : ERROR_DISK_USED_UP;
    switch (err) {
    case ERR_FULL: return ERROR_MEMORY;
    case -ENOSPC: return ERROR_DISK_FULL; /* only who grows is told: deletes have a reserve */
    case -EROFS: return ERROR_DISK_FAILED;
    default:
        *must_wait = true;
        return NULL;
    }
}

static bool is_for_subscribers(const struct command *info)
{
    switch (info->id) {
    case COMMAND_ping:
    case COMMAND_subscribe:
    case COMMAND_ssubscribe:
    case COMMAND_psubscribe:
    case COMMAND_unsubscribe:
    case COMMAND_sunsubscribe:
    case COMMAND_punsubscribe:
    case COMMAND_quit:
    case COMMAND_reset:
        return true;
    default:
        return false;
    }
}

/* Not queued by MULTI. */
static bool is_of_transaction(const struct command *info)
{
    switch (info->id) {
    case COMMAND_exec:
    case COMMAND_discard:
    case COMMAND_multi:
    case COMMAND_watch:
    case COMMAND_quit:
    case COMMAND_reset:
        return true;
    default:
        return false;
    }
}

/* What the command counts as: EXEC is all that it runs. */
static uint32_t effective_flags(const struct cmd *c)
{
    uint32_t flags = c->info->flags;

    if (UNLIKELY(c->session->transaction != NULL) && c->info->id == COMMAND_exec)
        flags |= transaction_flags(c->session);
    return flags;
}

enum verdict { VERDICT_RUN, VERDICT_QUEUE, VERDICT_REFUSED, VERDICT_PARKED };

static enum verdict refuse(struct cmd *c, const char *text)
{
    if (c->info->id == COMMAND_exec && (transaction_is_open(c->session) || !c->session->is_authenticated))
        transaction_refuse(c, text);
    else
        reply_error(c, text);
    return VERDICT_REFUSED;
}

static void session_park(struct session *session, struct list *list)
{
    session->is_parked = true;
    list_push_back(list, &session->park_node);
}

void session_wait_for_state(struct session *session)
{
    session_park(session, &session->engine->parked);
}

void session_wait_for_log(struct session *session)
{
    session->engine->counters.parked_log++;
    session_wait_for_state(session);
}

/* A key that the store has no room for. No read can find one, so only writes ask; few have an argument of that length. */
static bool has_key_too_long(const struct cmd *c, size_t bytes_of_all)
{
    struct command_keys keys;

    if (LIKELY(bytes_of_all <= STORE_KEY_MAX) || !(c->info->flags & CMD_WRITE) ||
        command_keys(c->info, c->argv, c->argc, &keys) != 0)
        return false;
    for (uint32_t r = 0; r < keys.range_count; r++)
        for (uint32_t i = 0; i < keys.ranges[r].count; i++)
            if (c->argv[keys.ranges[r].first + i * keys.ranges[r].step].len > STORE_KEY_MAX)
                return true;
    return false;
}

static size_t bytes_of_arguments(const struct cmd *c)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < c->argc; i++)
        bytes += c->argv[i].len + RECORD_BESIDE;
    return bytes;
}

bool cmd_may_log(struct cmd *c, size_t bytes)
{
    if (LIKELY(store_may_delete(c->store, bytes_of_arguments(c) + bytes)))
        return true;
    reply_error(c, ERROR_DISK_USED_UP);
    return false;
}

/* EXEC cannot wait any more once it has begun: there is room for all of it, or nothing of it happens. */
static size_t bytes_wanted(const struct cmd *c, uint32_t flags, size_t bytes_of_all)
{
    if (!(flags & CMD_WRITE))
        return 1;
    return UNLIKELY(c->info->id == COMMAND_exec) ? 1 + transaction_bytes(c->session) : bytes_of_all;
}

static enum verdict check_write(struct cmd *c, uint32_t flags, bool is_queued)
{
    bool must_wait;
    uint64_t growth;
    size_t bytes = bytes_of_arguments(c);
    const char *error;

    if (UNLIKELY(has_key_too_long(c, bytes)))
        return refuse(c, ERROR_KEY_LENGTH);
    error = dispatch_write_error(c->engine, is_queued ? flags | CMD_DENYOOM : flags, bytes_wanted(c, flags, bytes),
                                 &must_wait);
    if (UNLIKELY(error != NULL)) {
        /* A queue takes memory, whatever is in it; the disk is only the business of what writes. */
        if (!(flags & CMD_WRITE) && strcmp(error, ERROR_MEMORY) != 0)
            return VERDICT_RUN;
        return refuse(c, error);
    }
    if (UNLIKELY(must_wait) && (flags & CMD_WRITE) && !is_queued) {
        session_wait_for_log(c->session);
        return VERDICT_PARKED;
    }
    growth = command_growth(c);
    return LIKELY(growth == 0) || store_may_grow(c->store, growth) ? VERDICT_RUN : refuse(c, ERROR_MEMORY);
}

/* The session's own state: what only some of them have. */
static enum verdict check_session(struct cmd *c)
{
    struct session *s = c->session;

    if (UNLIKELY(!s->is_authenticated) && !(c->info->flags & CMD_NO_AUTH))
        return refuse(c, "NOAUTH Authentication required.");
    if (UNLIKELY(s->subscriptions != NULL) && s->resp == 2 && pubsub_is_subscribed(s) &&
        !is_for_subscribers(c->info)) {
        reply_error_format(c,
                           "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
                           "RESET are allowed in this context",
                           c->info->name);
        return VERDICT_REFUSED;
    }
    return VERDICT_RUN;
}

/* There is none here, so whoever insists on one is told. */
static bool lacks_replicas(const struct settings *settings)
{
    return settings->replicas_min > 0 && settings->replicas_lag_max_s > 0;
}

static enum verdict check(struct cmd *c)
{
    struct session *s = c->session;
    uint32_t flags = effective_flags(c);
    bool is_queued = UNLIKELY(s->transaction != NULL) && transaction_is_open(s) && !is_of_transaction(c->info);
    enum verdict verdict = check_session(c);

    if (UNLIKELY(c->engine->exclusive == s))
        return VERDICT_RUN; /* EXEC, which has begun */
    if (UNLIKELY(verdict != VERDICT_RUN))
        return verdict;
    if (UNLIKELY(is_queued) && (c->info->flags & CMD_NO_MULTI))
        return refuse(c, "ERR Command not allowed inside a transaction");
    if ((flags & (CMD_WRITE | CMD_DENYOOM)) != 0 || UNLIKELY(is_queued)) {
        verdict = check_write(c, flags, is_queued);
        if (UNLIKELY(verdict != VERDICT_RUN))
            return verdict;
        if (UNLIKELY((flags & CMD_WRITE) && lacks_replicas(c->engine->settings)))
            return refuse(c, "NOREPLICAS Not enough good replicas to write.");
    }
    if (UNLIKELY(engine_must_wait(s, (flags & (CMD_WRITE | CMD_MAY_REPLICATE)) != 0)))
        return VERDICT_PARKED;
    return is_queued ? VERDICT_QUEUE : VERDICT_RUN;
}

bool engine_must_wait(struct session *session, bool writes)
{
    struct engine *engine = session->engine;

    if (LIKELY(engine->pause == ENGINE_PAUSE_NONE && engine->exclusive == NULL))
        return false;
    if ((engine->exclusive == NULL || engine->exclusive == session) &&
        (engine->pause == ENGINE_PAUSE_NONE || (engine->pause == ENGINE_PAUSE_WRITES && !writes)))
        return false;
    /* Who is inside its EXEC is past the pause. */
    if (engine->exclusive == session)
        return false;
    session_park(session, &engine->paused);
    session->is_paused = engine->exclusive == NULL;
    return true;
}

void sessions_resume(struct list *list)
{
    struct list_node *node;
    struct list woken;

    list_init(&woken);
    list_move_all(list, &woken);
    while ((node = list_pop_front(&woken)) != NULL) {
        struct session *session = CONTAINER_OF(node, struct session, park_node);

        session->is_parked = session->is_paused = false;
        session->io->resume(session);
    }
}

/* ---- run ---------------------------------------------------------------------------------------------- */

static bool is_sample(const struct engine *engine, const struct cmd *c)
{
    return LIKELY((c->info->flags & CMD_FAST) || c->info->id == COMMAND_set) && c->argc < TIMED_ARGUMENTS &&
           LIKELY((uint64_t)engine->settings->slow_log_slower_than_us >= TIMED_ALL_BELOW_US);
}

static bool is_timed(struct engine *engine, const struct cmd *c)
{
    if (LIKELY(is_sample(engine, c)))
        return (++engine->timing_turn & (TIMED_EVERY - 1)) == 0;
    return true;
}

static void count_time(struct cmd *c, uint64_t took_us)
{
    struct engine *engine = c->engine;

    engine->counters.per_command[c->info->id].usec += is_sample(engine, c) ? took_us * TIMED_EVERY : took_us;
    latency_command_note(engine, c->info, took_us);
    if (!(c->info->flags & CMD_SKIP_SLOWLOG))
        slow_log_note(engine, c->session, c->argv, c->argc, took_us);
}

bool dispatch_keys_only(const struct cmd *c)
{
    if (!(c->info->flags & CMD_KEYS_ONLY))
        return false;
    /* SET k v GET answers the old value. */
    for (uint32_t i = 3; c->info->id == COMMAND_set && i < c->argc; i++)
        if (arg_is(c, i, "get"))
            return false;
    return true;
}

/* Whether to look for cold keys before it starts (D2). */
static bool needs_values_first(const struct cmd *c)
{
    const struct key_spec *keys = &c->info->keys;

    if (!(c->info->flags & CMD_WRITE) || c->keys_only)
        return false;
    return keys->kind != KEYS_NONE && !(keys->kind == KEYS_RANGE && keys->first == keys->last);
}

static bool run_handler(struct cmd *c, cmd_handler handler)
{
    size_t mark = c->session->out.len;

    handler(c);
    if (LIKELY(!c->is_parked && c->abort_error == NULL)) {
        ASSERT(c->count_depth == 0);
        return true;
    }
    reply_take_back(c, mark);
    if (c->is_parked)
        return false;
    reply_error(c, c->abort_error);
    return true;
}

/* As Redis: behind the command (EXEC behind what it ran), and one that blocks when it does. What waits for a value runs
 * again from its start, and is shown once. */
static void feed_monitors(const struct cmd *c, bool is_done)
{
    if ((c->info->flags & (CMD_SKIP_MONITOR | CMD_ADMIN)) == 0 && (is_done || c->session->blocked != NULL))
        pubsub_monitor_feed(c->engine, c->session, c->argv, c->argc);
}

bool dispatch_run(struct cmd *c)
{
    struct engine *engine = c->engine;
    bool timed = is_timed(engine, c), is_done;
    bool is_unit = !c->in_exec && (c->info->flags & CMD_WRITE) != 0, was_blocked = c->session->blocked != NULL;

    c->keys_only = dispatch_keys_only(c);
    if (UNLIKELY(needs_values_first(c)) && fetch_before(c)) {
        if (c->is_parked)
            return false;
        reply_error(c, c->abort_error);
        return true;
    }
    if (timed)
        engine->executing_since_us = io_clock_us(engine->io);
    if (is_unit)
        store_atomic_begin(c->store);
    is_done = run_handler(c, handler_of(c->info->id));
    if (is_unit)
        store_atomic_end(c->store);
    if (UNLIKELY(pubsub_is_monitored(engine)) && !was_blocked)
        feed_monitors(c, is_done);
    if (UNLIKELY(!is_done)) {
        engine->executing_since_us = 0;
        return false;
    }
    engine->counters.per_command[c->info->id].calls++;
    if (UNLIKELY(c->has_failed))
        engine->counters.per_command[c->info->id].failed++;
    if (timed) {
        uint64_t since_us = engine->executing_since_us;

        engine->executing_since_us = 0;
        count_time(c, io_clock_us(engine->io) - since_us);
    }
    return true;
}

static void count_refusal(struct cmd *c)
{
    if (c->info != NULL)
        c->engine->counters.per_command[c->info->id].rejected++;
    transaction_spoil(c->session);
}

/* After CLIENT REPLY SKIP the next command's reply is left out. */
static void reply_mode_step(struct session *s)
{
    if (s->reply_mode == SESSION_REPLY_SKIP)
        s->reply_mode = SESSION_REPLY_ON;
    else if (s->reply_mode == SESSION_REPLY_SKIP_NEXT)
        s->reply_mode = SESSION_REPLY_SKIP;
}

static enum cmd_result finish(struct cmd *c)
{
    struct session *s = c->session;

    s->fetch_error = 0;
    if (UNLIKELY(s->fetch_rounds > 0))
        fetch_settle(s);
    s->command_count++;
    c->engine->counters.commands++;
    if (UNLIKELY(s->reply_mode != SESSION_REPLY_ON))
        reply_mode_step(s);
    if (UNLIKELY(s->blocked != NULL))
        blocked_forget(s);
    if (UNLIKELY(c->engine->has_ready_keys))
        blocked_serve(c->engine);
    return CMD_DONE;
}

enum cmd_result engine_execute(struct session *session, const struct bytes *argv, uint32_t argc)
{
    struct engine *engine = session->engine;
    struct cmd c;

    ASSERT(argc > 0);
    if (UNLIKELY(!engine->is_turn_open))
        engine_turn_begin(engine);
    cmd_init(&c, session, argv, argc);
    if (UNLIKELY(session->blocked != NULL) && blocked_is_served(session))
        return finish(&c);
    if (UNLIKELY(!cmd_find(&c))) {
        count_refusal(&c);
        return finish(&c);
    }
    session->last_command = c.info->id;
    switch (check(&c)) {
    case VERDICT_RUN:
        if (UNLIKELY(!dispatch_run(&c)))
            return CMD_PARKED;
        break;
    case VERDICT_QUEUE: transaction_queue(&c); break;
    case VERDICT_REFUSED: count_refusal(&c); break;
    case VERDICT_PARKED: return CMD_PARKED;
    }
    return finish(&c);
}
