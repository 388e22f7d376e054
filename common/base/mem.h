/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.h - the only way to the heap.
 *
 * mem_alloc() may return NULL: what a peer can make us allocate is shed. must_alloc() is for start-up
 * and for small fixed structures, where going on is pointless; it aborts.
 */
#pragma once
#include "common/base/base.h"

MUST_USE void *mem_alloc(size_t size);
MUST_USE void *mem_zalloc(size_t size);
/* NULL: `pointer` is untouched. */
MUST_USE void *mem_realloc(void *pointer, size_t size);
/* Starts at a multiple of `align`, a power of two; given back with mem_free(). */
MUST_USE void *mem_alloc_aligned(size_t size, size_t align);
void mem_free(void *pointer);

MUST_USE void *must_alloc(size_t size);
MUST_USE void *must_zalloc(size_t size);
MUST_USE void *must_realloc(void *pointer, size_t size);
MUST_USE char *must_strdup(const char *string);
MUST_USE char *must_strndup(const char *data, size_t len);

/* Heap bytes behind an allocation: what was asked for, and what its size class adds. */
size_t mem_usable(const void *pointer);

/* A huge page's worth of memory, aligned to its size, on a huge page where the system gives one: for tables
 * that are touched all over. Not whole: on small pages, each of which comes when it is touched, until it is said to be
 * whole. Contents undefined. NULL: out of memory. */
#define MEM_REGION_SIZE (2u << 20)
MUST_USE void *mem_region_get(bool is_whole);
void mem_region_put(void *region);
/* A part's memory goes back to the system: its contents are lost, the addresses stay. The region is not made of huge
 * pages any more (they would bring the part back), until it is whole again. */
void mem_region_purge(void *region, void *part, size_t size);
void mem_region_whole(void *region);

/* From now on a thread of the allocator's gives pages that have been free for long back to the operating system. Else
 * whoever allocates does it now and then: some 0.1 to 1 ms, in the middle of a turn. The thread runs where its maker
 * may; it is not inherited by fork(). */
void mem_purge_aside(void);
/* Gives pages that are free back to the operating system. Costs a walk over the arenas: for timers. */
void mem_trim(void);

/* What the heap takes: bytes asked for, pages in use for them, pages that are there. Costs a walk: for reports. */
struct mem_usage {
    uint64_t allocated, active, resident;
};
void mem_usage_get(struct mem_usage *out);

/* Fixed-size objects, kept on a free list of at most `idle_max`; what is above goes back to the heap.
 * The memory of a returned object is poisoned in sanitizer builds. */
struct mem_pool {
    size_t object_size;
    uint32_t idle_count, idle_max;
    uint64_t live_count;
    void *idle; /* first of a list threaded through the objects */
};

void mem_pool_init(struct mem_pool *pool, size_t object_size, uint32_t idle_max);
void mem_pool_deinit(struct mem_pool *pool); /* asserts that nothing is live */
MUST_USE void *mem_pool_get_slow(struct mem_pool *pool);
void mem_pool_put(struct mem_pool *pool, void *object);
/* Frees idle objects above `keep`. */
void mem_pool_trim(struct mem_pool *pool, uint32_t keep);

/* Contents are undefined; NULL when the heap is exhausted. */
MUST_USE static inline void *mem_pool_get(struct mem_pool *pool)
{
#ifndef DCHECK_ON
    void *object = pool->idle;

    if (LIKELY(object != NULL)) {
        pool->idle = *(void **)object;
        pool->idle_count--;
        pool->live_count++;
        return object;
    }
#endif
    return mem_pool_get_slow(pool);
}
