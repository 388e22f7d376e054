/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_private.h - what the engine's files share.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "backend/cmd/engine.h"
#include "backend/cmd/reply.h"

/* ---- handlers.c ---- */

cmd_handler handler_of(uint16_t id);

/* ---- dispatch.c ---- */

void cmd_init(struct cmd *c, struct session *session, const struct bytes *argv, uint32_t argc);
/* Finds the row, or replies the error. */
bool cmd_find(struct cmd *c);
/* Where the output stands before a command, so that what it composed can be taken back. */
struct reply_mark {
    size_t len;
    uint64_t hold_lsn;
};
/* Runs a command's handler, times and counts it. False: it is parked; its output was taken back. */
bool dispatch_run(struct cmd *c);
/* Why a command with these flags may not write now; NULL: it may. *must_wait: later. */
const char *dispatch_write_error(const struct engine *engine, uint32_t flags, size_t bytes, bool *must_wait);
/* Values that its keys need, for this command's words. */
bool dispatch_keys_only(const struct cmd *c);
/* Parks the session until the log has room. */
void session_wait_for_log(struct session *session);
/* The same for a command that only asks: until hooks.state() of the store. */
void session_wait_for_state(struct session *session);
/* Every session of the list runs again. */
void sessions_resume(struct list *list);

/* ---- growth.c ---- */

#define GROWTH_ASKED (1u << 20) /* less is not worth asking for */
/* By how much the command, as it stands, makes a string longer, beyond its own arguments; 0: by little. */
uint64_t command_growth(struct cmd *c);

/* ---- fetch.c ---- */

/* Starts to fetch this cold key's value and those of the command's other keys that are cold; the session then waits.
 * False: not possible, c->abort_error says why. */
bool fetch_start(struct cmd *c, const struct store_key *key);
/* Looks for cold keys first. True: there are some: it waits, or c->abort_error is set. */
bool fetch_before(struct cmd *c);
/* The session has cold keys being fetched: it waits. False: an error, c->abort_error says which. */
bool fetch_wait(struct cmd *c);
/* For EXEC: adds the cold keys of another command to those that the session waits for. */
void fetch_add(struct cmd *c);
/* Adds this cold key to those that the session waits for. False: no memory. */
bool session_fetch(struct session *session, const struct store_key *key);
void fetch_forget(struct session *session);
/* What one waits for, another waits for now. */
void fetch_move(struct session *from, struct session *to);
/* The command in front waits for cold values once more. */
void fetch_round(struct session *session);
/* It is done. */
void fetch_settle(struct session *session);

/* ---- transaction.c ---- */

MUST_USE int watch_table_create(struct watch_table **out);
void watch_table_destroy(struct watch_table **table);
void watch_changed(struct engine *engine, uint8_t db, struct bytes key);
void watch_expired(struct engine *engine, uint8_t db, struct bytes key);
void watch_flushed(struct engine *engine, uint8_t db);
void watch_swapped(struct engine *engine, uint8_t a, uint8_t b);
bool transaction_is_open(const struct session *session);
/* +QUEUED. */
void transaction_queue(struct cmd *c);
/* A command was refused: EXEC will be, too. */
void transaction_spoil(struct session *session);
/* EXEC was refused for this reason ("OOM ..."). */
void transaction_refuse(struct cmd *c, const char *why);
uint32_t transaction_flags(const struct session *session); /* of all queued commands */
void transaction_forget(struct session *session);          /* the queue and the watches */
/* A session that ends while its EXEC waits in the middle: the rest of it is run for engine->orphan. */
void exec_leave(struct session *session);
void exec_orphan_run(struct io_timer *timer);
void exec_orphan_forget(struct engine *engine);
/* For CLIENT LIST. */
int64_t transaction_count(const struct session *session); /* -1: no MULTI */
bool transaction_is_dirty(const struct session *session);
/* Of watched keys. */
size_t transaction_watch_bytes(const struct session *session);

/* ---- blocking.c ---- */

MUST_USE int blocked_table_create(struct blocked_table **out);
void blocked_table_destroy(struct blocked_table **table);
void blocked_changed(struct engine *engine, uint8_t db, struct bytes key);
void blocked_swapped(struct engine *engine, uint8_t a, uint8_t b);
/* Serves who waits for keys that changed since. After each command that may have changed any. */
void blocked_serve(struct engine *engine);
/* Of a session that is blocked: its reply is there, the request is to be consumed. */
bool blocked_is_served(struct session *session);
/* CLIENT UNBLOCK. False: it is not blocked. */
bool blocked_unblock(struct session *session, bool with_error);

/* ---- reply.c ---- */

/* Back to where the output was `len` bytes long; counts under way are forgotten. */
void reply_take_back(struct cmd *c, size_t len);

/* ---- cmd_client.c ---- */

/* Replies the error if not. */
bool session_name_is_valid(struct cmd *c, struct bytes name);
/* Empty: none. False: no memory, replied. */
bool session_text_set(struct cmd *c, char **text, struct bytes value);

/* ---- cmd_backup.c ---- */

void debug_backup(struct cmd *c);
