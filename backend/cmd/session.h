/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one client of a shard, as commands see it. The connection around it is backend/client.c's.
 *
 *   N1  A command that cannot run yet (a cold value, a log that is behind, BLPOP on an empty list) consumes
 *       nothing and replies nothing: its bytes stay in front, and it runs again from the start when
 *       io->resume() is called. So no argument is ever copied to wait.
 *   N2  Replies leave in the order of commands. Bytes appended while hold_lsn was l leave when l is
 *       committed (backend/client.c keeps marks; here hold_lsn only rises).
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/list.h"
#include "common/base/outbuf.h"
#include "backend/store/store.h"

struct engine;
struct session;
struct transaction; /* cmd/transaction.c */
struct blocked;     /* cmd/blocking.c */
struct output_limit; /* cmd/settings.h */
struct subscriptions; /* cmd/pubsub.c */
struct fetch_set;     /* cmd/fetch.c */

enum session_protocol { SESSION_NEW, SESSION_RESP, SESSION_MC_TEXT, SESSION_MC_BINARY };
enum session_reply_mode { SESSION_REPLY_ON, SESSION_REPLY_OFF, SESSION_REPLY_SKIP, SESSION_REPLY_SKIP_NEXT };

/* What the connection does for its session. */
struct session_io {
    void (*dirty)(struct session *session);  /* there is output: flush it at the end of the turn */
    void (*resume)(struct session *session); /* the command in front may run now; from the loop, never inside */
    void (*kill)(struct session *session);   /* close; after this turn the session is gone. May be itself */
};

#define SESSION_NAME_MAX 512u

struct session {
    struct engine *engine;
    const struct session_io *io;
    struct list_node node; /* of engine->sessions */
    uint64_t id;
    struct outbuf out;     /* replies */
    uint64_t kept_bytes;   /* of engine->inputs_bytes: session_bytes() when they were counted */
    uint64_t hold_lsn;     /* what the replies appended so far depend on */
    uint64_t created_ms, last_ms; /* of the epoch */
    uint64_t command_count, bytes_in, bytes_out;
    uint16_t last_command;  /* enum command_id */
    uint8_t protocol;       /* enum session_protocol */
    uint8_t resp;           /* 2 or 3 */
    uint8_t db;
    uint8_t reply_mode;     /* enum session_reply_mode */
    bool is_authenticated, is_admin_port;
    bool close_after_reply; /* QUIT, a broken frame */
    bool is_parked;         /* the command in front waits (see N1) */
    bool is_paused;         /* that is for CLIENT PAUSE */
    bool is_killed;         /* nothing is appended any more: the output limit, no memory, CLIENT KILL */
    bool no_evict, no_touch;
    uint8_t fetch_rounds;   /* of the command in front: how often it waited for cold values */
    uint32_t query_bytes;   /* received, not consumed: for CLIENT LIST */
    int fd;                 /* for CLIENT LIST; -1: none */
    int fetch_error;        /* of the value fetched last: the command in front answers it; 0: none */
    char *name, *lib_name, *lib_version; /* own; NULL: none */
    char peer[64], local[64];            /* "127.0.0.1:50000", a path */
    struct transaction *transaction;     /* owns; NULL: neither MULTI nor WATCH */
    struct blocked *blocked;             /* owns; NULL: does not wait for keys */
    struct subscriptions *subscriptions; /* owns; NULL: none */
    struct fetch_set *fetches;           /* owns; cold values that the command in front needs; NULL: none */
    uint64_t save;                       /* the checkpoint that SAVE in front waits for; 0: none */
    uint64_t backup_id;                  /* the backup that it began (cmd_backup.c), and that ends with it; 0: none */
    struct list_node park_node;          /* of engine->parked or engine->paused, while is_parked for those */
};

/* Adds to / removes from the engine. deinit undoes all: watches, blocks, subscriptions, fetches. */
void session_init(struct session *session, struct engine *engine, const struct session_io *io);
void session_deinit(struct session *session);
/* It does not wait for keys any more; if it did, its request is not answered. */
void blocked_forget(struct session *session);
/* Replies appended from now on wait for this LSN. */
static inline void session_hold(struct session *session, uint64_t lsn)
{
    if (lsn > session->hold_lsn)
        session->hold_lsn = lsn;
}
/* The command in front waits for cold values: fetches that of `key`, too, if the command `name` will read it. False: there
 * is no use in asking for more. */
bool session_fetch_ahead(struct session *session, struct bytes name, struct bytes key, size_t *bytes);
/* Memory of what MULTI has queued. */
size_t transaction_bytes(const struct session *session);
/* All that it keeps beside requests and replies: MULTI's queue, watched keys, subscriptions. */
uint64_t session_bytes(const struct session *session);
/* After commands: it counts at once, as MULTI, WATCH and SUBSCRIBE may be all that a client ever says. */
void session_kept_count(struct session *session);
/* client-output-buffer-limit of its class. */
const struct output_limit *session_output_limit(const struct session *session);
/* "id=3 addr=127.0.0.1:1 ...", as CLIENT LIST has it; without newline. */
void session_describe(const struct session *session, struct buffer *out);
