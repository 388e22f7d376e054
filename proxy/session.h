/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - what only some clients have: a name, a transaction, a watch, a blocking command,
 * subscriptions. Made when the first of them is needed.
 *
 * State that Redis keeps for a connection needs a connection: a private upstream, bound to one server,
 * which no other client uses while it is bound.
 *
 *   N1  Binding is a barrier: nothing of the client is in flight when it begins, so no earlier command
 *       travels beside it on a shared connection.
 *   N2  While bound, commands for the bound server go over the private upstream; for others, over the
 *       shared ones.
 *   N3  A private upstream goes back to its server's idle ones only when it is clean (no transaction, no
 *       watch, nothing in flight, never subscribed); else it is closed.
 *   N4  A transaction lives on one server: a command with a key of another is refused (CROSSSLOT) and EXEC
 *       aborts. Until the first key is known, commands are kept here.
 *   N5  A subscriber whose upstream is lost is closed: it would miss messages without knowing.
 */
#pragma once
#include "proxy/nameset.h"
#include "proxy/proxy_private.h"

enum reply_mode {
    REPLY_ON,
    REPLY_OFF,
    REPLY_SKIP_NEXT, /* CLIENT REPLY SKIP was this command */
    REPLY_SKIP_THIS,
};

#define SESSION_QUEUED_MAX (1u << 20)
#define SESSION_HELD_MAX   (1u << 20)
#define SESSION_INPUT_MAX  (1u << 20) /* read ahead behind a command that waits */

struct session {
    struct client *client; /* borrows: its owner */
    struct buffer name, lib_name, lib_version;
    uint8_t reply_mode;
    bool is_in_multi, is_multi_sent; /* sent: the server knows of the transaction */
    bool is_aborted;                 /* EXEC will say EXECABORT */
    bool is_watching, is_watch_lost; /* lost: EXEC will say that a key has changed */
    bool is_blocked;                 /* the one request in flight may take for ever */
    struct upstream *upstream;       /* owns while bound */
    struct buffer queued;            /* frames of a transaction whose server is not known yet */
    uint32_t queued_count;
    /* Subscriptions: one upstream for each server that has some. */
    struct upstream **links; /* owns; upstreams too */
    uint32_t link_count;
    struct nameset channels, patterns, shard_channels;
    struct buffer held; /* pushes that wait for a half-sent reply to end */
    bool has_left;      /* another worker has it now: its connections are not ours any more */
};

#define SESSION_LINKS_MOVE_MAX 63 /* descriptors that travel beside the client's */

/* NULL: out of memory. */
struct session *session_get(struct client *client);
/* The server of a command's keys; NULL and ERROR_NONE: it has none. */
struct server *session_server(struct client *client, const struct command *command,
                              const struct resp_request *request, enum error_id *error);

/* Whether the frames of a transaction, as another worker packed them, are whole; counts them. */
bool session_queued_is_good(struct session *session);

/* ---- pubsub.c ---- */

bool pubsub_is_command(const struct command *command);
void pubsub_command(struct client *client, const struct command *command,
                    const struct resp_request *request);
uint32_t pubsub_count(const struct session *session); /* channels and patterns */
bool pubsub_is_subscribed(const struct session *session);
/* Leaves everything; nothing is said to the client. */
void pubsub_leave(struct session *session);
size_t pubsub_recv(struct upstream *upstream, struct bytes data);
void pubsub_link_gone(struct session *session, struct upstream *upstream);
/* Pushes that were held back go out. */
void pubsub_release(struct session *session);
