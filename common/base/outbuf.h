/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbuf.h - bytes on their way out: a chain of chunks from a worker's pools.
 *
 * A connection holds chunks only while it has something to send. Small answers take a small chunk, what
 * is more goes to large ones. An append copies: the source is a receive buffer that is used again. What is large and
 * shared (shared.h) is not copied: a chunk refers to it, and holds it until it is sent.
 */
#pragma once
#include "common/base/bytes.h"
#include "common/base/mem.h"

#include <sys/uio.h>

struct chunk {
    struct chunk *next;
    char *shared; /* holds; NULL: the bytes are its own */
    uint32_t start, end, cap; /* of a shared one no room is left: cap == end */
    bool is_large;
    char data[];
};

static inline const char *chunk_bytes(const struct chunk *chunk)
{
    return (chunk->shared != NULL ? chunk->shared : chunk->data) + chunk->start;
}

#define CHUNK_SMALL_SIZE 1024
#define CHUNK_LARGE_SIZE 16384

/* One for a worker. */
struct chunk_pools {
    struct mem_pool small, large;
    uint64_t shared_bytes; /* that chunks refer to, as often as they do */
};
void chunk_pools_init(struct chunk_pools *pools);
void chunk_pools_deinit(struct chunk_pools *pools);
void chunk_pools_trim(struct chunk_pools *pools);
/* Bytes that chunks in use take, and what they refer to as if it were copied. */
uint64_t chunk_pools_bytes(const struct chunk_pools *pools);
/* Without what they refer to. */
uint64_t chunk_pools_own_bytes(const struct chunk_pools *pools);

/* All zero is empty. */
struct outbuf {
    struct chunk *first, *last; /* owns */
    size_t len;                 /* bytes in all chunks */
};

static inline bool outbuf_is_empty(const struct outbuf *out)
{
    return out->len == 0;
}

/* false: out of memory; a part may have been appended, so the connection is lost. */
MUST_USE bool outbuf_append_slow(struct chunk_pools *pools, struct outbuf *out, const char *data,
                                 size_t size);
MUST_USE static inline bool outbuf_append(struct chunk_pools *pools, struct outbuf *out,
                                          const void *data, size_t size)
{
    struct chunk *last = out->last;

    if (LIKELY(last != NULL && last->cap - last->end >= size && size > 0)) { /* nothing may be NULL */
        memcpy(last->data + last->end, data, size);
        last->end += (uint32_t)size;
        out->len += size;
        return true;
    }
    return outbuf_append_slow(pools, out, data, size);
}

/* Without a copy: the first `size` bytes behind `shared`, which must not change until they are sent. Holds it. */
MUST_USE bool outbuf_append_shared(struct chunk_pools *pools, struct outbuf *out, char *shared, uint32_t size);

/* `size` contiguous bytes at the end, or NULL; outbuf_commit() says how many were used. What was left of
 * the chunk before is not used then, so this is for sizes that leave little. */
#define OUTBUF_RESERVE_MAX 4096
char *outbuf_reserve(struct chunk_pools *pools, struct outbuf *out, size_t size);
void outbuf_commit(struct outbuf *out, size_t size);

/* Moves everything from `source` to the end of `target`. */
void outbuf_splice(struct outbuf *target, struct outbuf *source);
/* Fills at most `max` slices; returns how many. */
int outbuf_slices(const struct outbuf *out, struct iovec *slices, int max);
/* The same, cut to the first `bytes`; *total: how many they have. */
int outbuf_slices_of(const struct outbuf *out, size_t bytes, struct iovec *slices, int max, size_t *total);
void outbuf_consume(struct chunk_pools *pools, struct outbuf *out, size_t size);
/* Drops bytes from the end, so that `len` are left. */
void outbuf_truncate(struct chunk_pools *pools, struct outbuf *out, size_t len);
void outbuf_clear(struct chunk_pools *pools, struct outbuf *out);
