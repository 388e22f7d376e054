/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - which server holds a key.
 *
 * A ring is built once from the servers and is read-only from then on: a change of the
 * configuration or of a server's health builds another. It answers with the server's index in the
 * array that it was built from. ketama, modula and random place keys exactly as twemproxy 0.5 on
 * x86-64 does.
 *
 *   ketama   points of md5("label-n") on a circle of 32 bits, weighted, over the live servers
 *   modula   hash mod total weight of the live servers, in array order
 *   random   any live server, weights ignored; the caller brings the random number
 *   jump     Lamping and Veach's jump consistent hash over the weights in array order: appending a
 *            server moves the least. A dead server's keys spread over the others, nobody else's
 * move slots    Redis Cluster's 16384 slots (CRC16, "{}" tags), each owned by one server range
 * bytewise ranges of the key itself
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/ring/hash.h"

/* The first three are twemproxy's. */
#define RING_DISTRIBUTION_TABLE(X)                                                                 \
    X(ketama)                                                                                      \
    X(modula)                                                                                      \
    X(random)                                                                                      \
    X(jump)                                                                                        \
    X(slots)                                                                                       \
    X(range)

enum ring_distribution {
#define X(name) RING_##name,
    RING_DISTRIBUTION_TABLE(X)
#undef X
        RING_DISTRIBUTION_COUNT
};

const char *ring_distribution_name(enum ring_distribution distribution);
MUST_USE bool ring_distribution_by_name(struct bytes name, enum ring_distribution *out);

#define RING_SERVERS_MAX 65535u
#define RING_WEIGHT_MAX  100000000u /* of one server, and of all of a ring together 2^32 - 1 */
#define RING_NONE        UINT32_MAX /* nobody holds the key: no live server, slot without owner */

/* Both ends belong to it. */
struct ring_slots {
    uint16_t first, last;
};

/* `from` belongs to it, `to` does not. An empty `from` is the lowest key, an empty `to` has no end.
 */
struct ring_range {
    struct bytes from, to; /* borrowed while the ring is built, then copied */
};

struct ring_server {
    struct bytes name; /* the label: feeds ketama, and is the server's identity in comparisons */
    uint32_t weight;   /* 1..RING_WEIGHT_MAX; 0: no part of the ring at all (a spare) */
    bool is_live;      /* false: down and ejected, gets no keys */
    const struct ring_slots *slots; /* distribution slots; borrowed while the ring is built */
    uint32_t slots_count;
    const struct ring_range *ranges; /* distribution range; borrowed while the ring is built */
    uint32_t ranges_count;
};

struct ring_options {
    enum ring_distribution distribution;
    enum hash_kind hash; /* slots: not looked at, always CRC16 */
    bool has_tag;        /* slots: not looked at, always "{}" */
    char tag_open, tag_close;
};

struct ring; /* opaque */

/* Copies everything it needs. With `slots` and no server naming any, they are split evenly by
 * weight, in array order. A dead server keeps its slots and ranges, and their keys get RING_NONE.
 * ERR_INVALID: no server, too many, a weight out of range, a slot or range out of order, slots or
 * ranges of two servers overlap; -ENOMEM. No live server is not an error: look-ups say RING_NONE.
 */
MUST_USE int ring_create(const struct ring_options *options, const struct ring_server *servers,
                         uint32_t count, struct ring **out);
void ring_destroy(struct ring **ring); /* NULL is fine */

/* The server of `key`: its index, or RING_NONE. `random` is any number, evenly distributed over 32
 * bits; only distribution random looks at it (ring_wants_random). */
uint32_t ring_lookup(const struct ring *ring, struct bytes key, uint32_t random);
/* The same for `count` keys, every `step`th of `keys`: RING_NONE or the index of each to out. Not for
 * distribution random. */
void ring_lookup_each(const struct ring *ring, const struct bytes *keys, uint32_t step, uint32_t count,
                      uint32_t *out);
bool ring_wants_random(const struct ring *ring);

/* In two steps, for who needs the hash as well: the hash of the deciding part of the key (slots:
 * the slot), then the server; random takes any number for the hash. Not for distribution range. */
uint32_t ring_hash(const struct ring *ring, struct bytes key);
uint32_t ring_lookup_hash(const struct ring *ring, uint32_t hash);
/* The part of the key that decides. A view into `key`. */
struct bytes ring_key_part(const struct ring *ring, struct bytes key);

enum ring_distribution ring_get_distribution(const struct ring *ring);
uint32_t ring_server_count(const struct ring *ring); /* dead ones too */
uint32_t ring_live_count(const struct ring *ring);
struct bytes ring_server_name(const struct ring *ring,
                              uint32_t index); /* valid as long as the ring */
/* ketama: points of this server on the circle; slots: how many it owns; else its weight if live. */
uint32_t ring_server_share(const struct ring *ring, uint32_t index);
/* Slots (or parts of the key space) without an owner: 0 or 1 for range, 0..16384 for slots. */
uint32_t ring_gap_count(const struct ring *ring);

/* 64 bits over all that decides placement: distribution, hash, tag, and labels, weights and parts
 * of the live servers in their order. Equal fingerprints place every key alike. */
uint64_t ring_fingerprint(const struct ring *ring);

/* The share, 0..1, of `samples` made-up keys whose server has another label in `b` than in `a`. The
 * sample is always the same. With distribution random on either side: 1 - 1/n. */
double ring_moved_share(const struct ring *a, const struct ring *b, uint32_t samples);
