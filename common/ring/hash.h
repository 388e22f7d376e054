/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.h - twemproxy's twelve key hashes, bit for bit, and the slot of a key in Redis Cluster.
 *
 * All give 32 bits. They are what nutcracker computes on x86-64, not what textbooks print: fnv and
 * one_at_a_time (and one byte of hsieh) take key bytes as *signed* chars, whatever the compiler's
 * plain char is; crc32 keeps 15 bits; crc16 keeps 32; every fnv is cut to its low 32 bits.
 * None of them defends against chosen keys: they place keys, they do not index memory.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

/* The order is twemproxy's. */
#define HASH_TABLE(X)                                                                              \
    X(one_at_a_time)                                                                               \
    X(md5)                                                                                         \
    X(crc16)                                                                                       \
    X(crc32)                                                                                       \
    X(crc32a)                                                                                      \
    X(fnv1_64)                                                                                     \
    X(fnv1a_64)                                                                                    \
    X(fnv1_32)                                                                                     \
    X(fnv1a_32)                                                                                    \
    X(hsieh)                                                                                       \
    X(murmur)                                                                                      \
    X(jenkins)

enum hash_kind {
#define X(name) HASH_##name,
    HASH_TABLE(X)
#undef X
        HASH_KIND_COUNT
};

#define HASH_SLOT_COUNT 16384u /* of Redis Cluster */

/* The hash of the whole key; an empty key is hashed too (a ring gives it 0 without asking). */
uint32_t hash_key(enum hash_kind kind, struct bytes key);

/* The same for `count` keys, every `step`th of `keys`. */
void hash_key_each(enum hash_kind kind, const struct bytes *keys, uint32_t step, uint32_t count,
                   uint32_t *out);

/* The name in configuration files ("fnv1a_64"). */
const char *hash_name(enum hash_kind kind);
/* Whether `name` is one; *out is written only then. */
MUST_USE bool hash_by_name(struct bytes name, enum hash_kind *out);

/* CRC-16/XMODEM, 16 bits. */
uint16_t hash_crc16_xmodem(struct bytes data);

/* The part of the key that decides: between the first `open` and the first `close` after it, unless
 * that is empty or one of the two is missing: then the whole key. */
struct bytes hash_tag_part(struct bytes key, char open, char close);

/* Redis Cluster's slot, 0..16383, by "{}" tags. */
uint32_t hash_slot(struct bytes key);

#define HASH_MD5_SIZE 16
void hash_md5_digest(struct bytes data, uint8_t digest[static HASH_MD5_SIZE]);

/* 64 bits with good avalanche, stable for all time: fingerprints (not for untrusted keys). */
uint64_t hash_fingerprint(uint64_t seed, struct bytes data);
