/* SPDX-License-Identifier: Apache-2.0 */
/*
 * discovery.h - pools whose members are found out: what Redis Cluster and Sentinel pools share.
 *
 *   - The pool's array of servers has room for those that are found; they never move, as everybody keeps
 *     pointers. A server that takes no keys (a seed, a sentinel, a replica, one that left) has is_gone.
 *   - Before the members are known clients wait: they are not read, so order is kept and nothing is held
 *     here. That ends after the queue time-out; from then on requests fail at once.
 *   - A request that a server refused for a moment (TRYAGAIN) is parked: off every upstream, kept here,
 *     sent again. Its client is not read meanwhile, so nothing overtakes it.
 */
#pragma once
#include "proxy/proxy_private.h"

#define DISCOVERY_HOPS_MAX    5u    /* redirects of one request */
#define DISCOVERY_TRIES_MAX   100u  /* of a parked request, ... */
#define DISCOVERY_TRY_MS      20u   /* ... so far apart */
#define DISCOVERY_PARKED_MAX  4096u /* requests of a pool */
#define DISCOVERY_CLUSTER_MAX 1024u /* nodes found, beside the seeds */

struct discovery {
    struct pool *pool;
    struct health_slot *health; /* owns; of the servers that are not in the configuration */
    struct list parked;
    uint32_t parked_count;
    struct io_timer park_timer;
    struct io_timer wait_timer; /* runs while clients wait for the members */
    bool is_known;    /* the members */
    bool is_hopeless; /* clients have waited long enough */
};

/* The last word of a redirect: "127.0.0.1:7001", "::1:7001", ":7001". */
struct discovery_target {
    char host[256];
    uint16_t port;
};

int discovery_init(struct discovery *discovery, struct pool *pool);
void discovery_deinit(struct discovery *discovery);
/* Makes servers[index] one of this name and address (NULL: none yet) which takes no keys. index may be
 * server_count. */
void discovery_server_init(struct discovery *discovery, uint32_t index, const char *name,
                           const char *host, uint16_t port);
/* Clients that waited are read again. */
void discovery_known(struct discovery *discovery);
/* false: not parked; its answer must be passed on. The request is the head of the upstream's queue. */
bool discovery_park(struct discovery *discovery, struct upstream *upstream, struct request *head);
/* Sends the head of the upstream's queue to another server. false: it cannot be: pass the answer on. */
bool discovery_follow(struct discovery *discovery, struct upstream *upstream, struct request *head,
                      struct server *server, bool is_asking);

/* ---- cluster.c ---- */

struct cluster;
int cluster_create(struct pool *pool, struct discovery **out);
void cluster_destroy(struct discovery *discovery);
struct server *cluster_route(struct discovery *discovery, struct bytes key);
bool cluster_redirect(struct discovery *discovery, struct upstream *upstream, struct request *head,
                      struct bytes reply);
struct server *cluster_note_moved(struct discovery *discovery, struct bytes reply);
void cluster_server_failed(struct discovery *discovery, struct server *server);
/* Of a key's slot among the parts of the request that is being split; *is_new: part_next is its part now. */
uint32_t cluster_part(struct discovery *discovery, uint32_t slot, uint32_t part_next, bool *is_new);
void cluster_parts_begin(struct discovery *discovery);

/* ---- sentinel.c ---- */

int sentinel_create(struct pool *pool, struct discovery **out);
void sentinel_destroy(struct discovery *discovery);
struct server *sentinel_route(struct discovery *discovery, struct bytes key);
bool sentinel_redirect(struct discovery *discovery, struct upstream *upstream, struct bytes reply);
void sentinel_server_failed(struct discovery *discovery, struct server *server);
void sentinel_pushed(struct discovery *discovery, struct bytes message);
void sentinel_upstream_gone(struct discovery *discovery, struct upstream *upstream);
