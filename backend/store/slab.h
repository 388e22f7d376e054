/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.h - memory for entries: classes in 8-byte steps, so that 136 bytes cost 136.
 *
 *     page of 64 KiB, aligned: [header][object][object]...   all of one class
 *
 * Pages come from huge pages (pages.h); an empty one goes back. Above SLAB_SIZE_MAX the heap itself is used.
 * Charged is the size of the class, so accounted bytes are what the memory holds but for unused parts of
 * pages, which `page_bytes` counts.
 *
 *   B1  Every page of a class that has room is on exactly one of its lists: dense; sparse, when less than a quarter
 *       of it is in use (until it is half full again). A full one is on none.
 *   B2  New objects go to dense pages as long as there is one. So moving objects out of sparse pages
 *       (slab_is_sparse()) ends with those pages free.
 *   B3  Pages of the huge page that is cleared (pages.h) are on their class's list `leaving`: nothing new goes there, and
 *       slab_clear() offers what is in them to be moved.
 */
#pragma once
#include "common/base/base.h"

#define SLAB_PAGE_SIZE (64u << 10)
#define SLAB_STEP      8u
#define SLAB_SIZE_MAX  2048u

struct slab;
struct page_stock;

/* `stock` (may be NULL) outlives it. is_cleared: slab_clear() is called again and again. */
MUST_USE int slab_create(struct page_stock *stock, bool is_cleared, struct slab **out);
/* Gives back all pages and large objects, also those that are out. */
void slab_destroy(struct slab **slab);
/* 8-byte aligned; contents undefined. NULL: out of memory. */
MUST_USE void *slab_get(struct slab *slab, size_t size);
/* Whether moving this object would help to free its page: a walk over the keys may do so. */
bool slab_is_sparse(const struct slab *slab, const void *object, size_t size);
/* Offers up to `budget` objects out of a huge page that is to go, fewer where much was given back, as that is looked at, too:
 * `move` takes new memory for one and gives the old back; if it does not, the attempt ends. To be called when nobody keeps a
 * pointer to an object. False: there is nothing to clear. */
bool slab_clear(struct slab *slab, uint32_t budget, void (*move)(void *arg, void *object), void *arg);
/* `size` as given to slab_get(). */
void slab_put(struct slab *slab, void *object, size_t size);
/* What an object of this size is charged. */
static inline size_t slab_charge(size_t size)
{
    return (size + (SLAB_STEP - 1)) & ~(size_t)(SLAB_STEP - 1);
}
uint64_t slab_used_bytes(const struct slab *slab); /* charged */
uint64_t slab_page_bytes(const struct slab *slab); /* of pages and of large objects */
