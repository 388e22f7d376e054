/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/outbuf.h"

#include "common/base/shared.h"

#define CHUNK_IDLE_SMALL_MAX 4096
#define CHUNK_IDLE_LARGE_MAX 256
#define CHUNK_IDLE_KEEP      16

void chunk_pools_init(struct chunk_pools *pools)
{
    pools->shared_bytes = 0;
    mem_pool_init(&pools->small, CHUNK_SMALL_SIZE, CHUNK_IDLE_SMALL_MAX);
    mem_pool_init(&pools->large, CHUNK_LARGE_SIZE, CHUNK_IDLE_LARGE_MAX);
}

void chunk_pools_deinit(struct chunk_pools *pools)
{
    mem_pool_deinit(&pools->small);
    mem_pool_deinit(&pools->large);
}

void chunk_pools_trim(struct chunk_pools *pools)
{
    mem_pool_trim(&pools->small, CHUNK_IDLE_KEEP);
    mem_pool_trim(&pools->large, CHUNK_IDLE_KEEP);
}

uint64_t chunk_pools_own_bytes(const struct chunk_pools *pools)
{
    return pools->small.live_count * CHUNK_SMALL_SIZE + pools->large.live_count * CHUNK_LARGE_SIZE;
}

uint64_t chunk_pools_bytes(const struct chunk_pools *pools)
{
    return chunk_pools_own_bytes(pools) + pools->shared_bytes;
}

static struct chunk *chunk_get(struct chunk_pools *pools, bool is_large)
{
    struct chunk *chunk = mem_pool_get(is_large ? &pools->large : &pools->small);

    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->shared = NULL;
        chunk->start = chunk->end = 0;
        chunk->is_large = is_large;
        chunk->cap = (is_large ? CHUNK_LARGE_SIZE : CHUNK_SMALL_SIZE) - (uint32_t)sizeof(*chunk);
    }
    return chunk;
}

static void chunk_put(struct chunk_pools *pools, struct chunk *chunk)
{
    if (UNLIKELY(chunk->shared != NULL)) {
        pools->shared_bytes -= chunk->cap;
        shared_drop(chunk->shared);
    }
    mem_pool_put(chunk->is_large ? &pools->large : &pools->small, chunk);
}

static bool outbuf_add(struct chunk_pools *pools, struct outbuf *out, bool is_large)
{
    struct chunk *chunk = chunk_get(pools, is_large);

    if (chunk == NULL)
        return false;
    if (out->last == NULL)
        out->first = chunk;
    else
        out->last->next = chunk;
    out->last = chunk;
    return true;
}

static bool outbuf_grow(struct chunk_pools *pools, struct outbuf *out, size_t size)
{
    bool follows_own = out->last != NULL && out->last->shared == NULL;

    return outbuf_add(pools, out, follows_own || size > CHUNK_SMALL_SIZE - sizeof(struct chunk));
}

bool outbuf_append_slow(struct chunk_pools *pools, struct outbuf *out, const char *data, size_t size)
{
    while (size > 0) {
        struct chunk *last = out->last;
        size_t part;

        if (last == NULL || last->end == last->cap) {
            if (!outbuf_grow(pools, out, size))
                return false;
            last = out->last;
        }
        part = MIN(size, (size_t)(last->cap - last->end));
        memcpy(last->data + last->end, data, part);
        last->end += (uint32_t)part;
        out->len += part;
        data += part;
        size -= part;
    }
    return true;
}

bool outbuf_append_shared(struct chunk_pools *pools, struct outbuf *out, char *shared, uint32_t size)
{
    if (!outbuf_add(pools, out, false))
        return false;
    shared_hold(shared);
    out->last->shared = shared;
    out->last->end = out->last->cap = size;
    out->len += size;
    pools->shared_bytes += size;
    return true;
}

char *outbuf_reserve(struct chunk_pools *pools, struct outbuf *out, size_t size)
{
    ASSERT(size <= OUTBUF_RESERVE_MAX);
    if (out->last == NULL || out->last->cap - out->last->end < size)
        if (!outbuf_grow(pools, out, size))
            return NULL;
    return out->last->data + out->last->end;
}

void outbuf_commit(struct outbuf *out, size_t size)
{
    ASSERT(out->last != NULL && out->last->cap - out->last->end >= size);
    out->last->end += (uint32_t)size;
    out->len += size;
}

void outbuf_splice(struct outbuf *target, struct outbuf *source)
{
    if (source->first == NULL)
        return;
    if (target->last == NULL)
        target->first = source->first;
    else
        target->last->next = source->first;
    target->last = source->last;
    target->len += source->len;
    *source = (struct outbuf){0};
}

int outbuf_slices(const struct outbuf *out, struct iovec *slices, int max)
{
    int count = 0;

    for (struct chunk *chunk = out->first; chunk != NULL && count < max; chunk = chunk->next) {
        if (chunk->end == chunk->start)
            continue;
        slices[count].iov_base = (char *)chunk_bytes(chunk);
        slices[count].iov_len = chunk->end - chunk->start;
        count++;
    }
    return count;
}

int outbuf_slices_of(const struct outbuf *out, size_t bytes, struct iovec *slices, int max, size_t *total)
{
    int count = outbuf_slices(out, slices, max), used = 0;

    *total = 0;
    for (; used < count && *total < bytes; used++) {
        slices[used].iov_len = MIN(slices[used].iov_len, bytes - *total);
        *total += slices[used].iov_len;
    }
    return used;
}

void outbuf_consume(struct chunk_pools *pools, struct outbuf *out, size_t size)
{
    ASSERT(size <= out->len);
    out->len -= size;
    while (out->first != NULL) {
        struct chunk *first = out->first;
        size_t part = MIN(size, (size_t)(first->end - first->start));

        first->start += (uint32_t)part;
        size -= part;
        if (first->start < first->end)
            break;
        out->first = first->next;
        chunk_put(pools, first);
    }
    if (out->first == NULL)
        out->last = NULL;
    ASSERT(size == 0);
}

void outbuf_truncate(struct chunk_pools *pools, struct outbuf *out, size_t len)
{
    struct chunk *last = out->first;
    size_t left = len;

    ASSERT(len <= out->len);
    if (len == 0) {
        outbuf_clear(pools, out);
        return;
    }
    while (left > last->end - last->start) {
        left -= last->end - last->start;
        last = last->next;
    }
    last->end = last->start + (uint32_t)left;
    if (last->shared != NULL) {
        pools->shared_bytes -= last->cap - last->end;
        last->cap = last->end;
    }
    while (last->next != NULL) {
        struct chunk *dropped = last->next;

        last->next = dropped->next;
        chunk_put(pools, dropped);
    }
    out->last = last;
    out->len = len;
}

void outbuf_clear(struct chunk_pools *pools, struct outbuf *out)
{
    while (out->first != NULL) {
        struct chunk *first = out->first;

        out->first = first->next;
        chunk_put(pools, first);
    }
    *out = (struct outbuf){0};
}
