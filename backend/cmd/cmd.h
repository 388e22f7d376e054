/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd.h - one command in execution, and what handlers call.
 *
 * A handler is `void cmd_NAME(struct cmd *c)`, one for each row of common/command/command.def that is not
 * HOME_LATER; a missing one fails to link. (handlers.h has the prototypes; containers like CLIENT have none.) It runs to its end in memory: the values of the keys that
 * the table names are hot when it starts (unless the row says CMD_KEYS_ONLY). Arity, authentication,
 * permission to write and MULTI are already checked.
 *
 *     void cmd_strlen(struct cmd *c)
 *     {
 *         struct store_key key;
 *
 *         if (key_read(c, c->argv[1], STORE_STRING, &key))
 *             reply_integer(c, key.entry == NULL ? 0 : (int64_t)store_string(key.entry).len);
 *     }
 *
 * To change an object:
 *
 *     if (!key_write(c, c->argv[1], STORE_HASH, &key)) return;             // WRONGTYPE was replied
 *     object = store_object_open(c->store, &key, STORE_HASH, true);        // NULL: cmd_out_of_memory(c)
 *     hash_set(object, field, value);                                      // memory
 *     effect_begin(store_effects(c->store), HASH_EFFECT_SET, 2); ...       // what the log gets
 *     cmd_stored(c, store_change(c->store, &key));                         // logs; removes it if empty
 *
 * All records of one command are one unit of recovery: the dispatcher brackets it.
 */
#pragma once
#include "common/base/bytes.h"
#include "common/command/command.h"
#include "backend/cmd/session.h"
#include "backend/store/effect.h"
#include "backend/store/store.h"

enum cmd_result {
    CMD_DONE,   /* consume the request */
    CMD_PARKED, /* consume nothing: N1 of session.h */
};

#define REPLY_COUNTS_MAX 4u

struct cmd {
    struct engine *engine;
    struct store *store;
    struct session *session;
    const struct command *info;
    const struct bytes *argv; /* borrows; argv[0] is the name, for a subcommand argv[1] is its own */
    uint32_t argc;
    uint8_t db;
    bool in_exec;       /* inside EXEC: must not wait */
    bool is_parked;     /* cmd_need() or cmd_block() was called: return at once */
    bool has_failed;    /* an error was replied */
    bool keys_only;     /* values may be cold: the row says CMD_KEYS_ONLY, or this SET has no GET */
    const char *abort_error; /* what was composed is thrown away, this is the reply */
    uint64_t now_ms;    /* of the epoch; one value for the whole turn */
    uint8_t count_depth;
    struct outbuf counts[REPLY_COUNTS_MAX]; /* reply_count_later(): what was there before */
};

typedef void (*cmd_handler)(struct cmd *c);

/* ---- keys ---- */

/* Looks up. False: the value is of another type, WRONGTYPE was replied. STORE_NONE: any type. Notes what the reply
 * depends on (N2) and counts the use. Also false when an undeclared key is cold: then the command is parked
 * (c->is_parked), so return without a word on false. */
bool key_read(struct cmd *c, struct bytes name, enum store_type type, struct store_key *out);
/* The same for a change. */
bool key_write(struct cmd *c, struct bytes name, enum store_type type, struct store_key *out);
/* After a store call: replies the error of `err` if any. True when err is 0. */
bool cmd_stored(struct cmd *c, int err);
/* Before what takes away and logs so many bytes beside its words, which the dispatch has asked for. False: there is no
 * place for them, which was replied. */
bool cmd_may_log(struct cmd *c, size_t bytes);
void cmd_out_of_memory(struct cmd *c);
/* Attributes as they are now, for changes that keep them. */
struct store_attributes key_attributes(const struct store_key *key);
/* Parks the command until the value of this cold key is in memory; then it runs again from the start. Return at
 * once. For keys that the table does not name: key_read() and key_write() do it by themselves. */
void cmd_need(struct cmd *c, const struct store_key *key);
/* Deletes if the time is past, else sets: for EXPIRE, SET EX and their like. */
bool key_expire_at(struct cmd *c, struct store_key *key, int64_t at_ms);

/* ---- arguments: false: the error was replied ---- */

bool arg_i64(struct cmd *c, uint32_t i, int64_t *out);            /* ERROR_INTEGER */
bool arg_i64_range(struct cmd *c, uint32_t i, int64_t min, int64_t max, int64_t *out, const char *error);
bool arg_double(struct cmd *c, uint32_t i, double *out);          /* ERROR_FLOAT */
bool arg_timeout_ms(struct cmd *c, uint32_t i, uint64_t *out);    /* seconds, fractions too; 0: for ever */
bool arg_is(const struct cmd *c, uint32_t i, const char *word);   /* any case */

/* ---- waiting ---- */

/* Waits until one of these keys changes (then the command runs again from the start), or the time is over: then
 * `timed_out` composes the reply. In EXEC it calls timed_out() at once. The keys are copied.
 * first..count, step: arguments. */
void cmd_block(struct cmd *c, uint32_t first, uint32_t count, uint64_t timeout_ms,
               void (*timed_out)(struct cmd *c));

/* ---- engine's entry points, for the connection ---- */

/* One RESP request. */
enum cmd_result engine_execute(struct session *session, const struct bytes *argv, uint32_t argc);
