/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/pages.h"

#include "backend/store/page_stock.h"
#include "common/base/mem.h"

#define REGION_PAGES (MEM_REGION_SIZE / PAGES_PAGE_SIZE)
#define EMPTY_KEPT   1u
/* Free pages that keep their memory: this share of those in use, and some. */
#define IDLE_SHARE   32u
#define IDLE_MIN     64u

struct page_region {
    struct list_node node; /* on usable iff free_mask != 0, else on full */
    char *base;            /* owns */
    uint32_t free_mask;    /* bit i: page i is free */
    uint32_t purged_mask;  /* ... and its memory went back */
};

_Static_assert(REGION_PAGES == 32, "a region's pages are the bits of a mask");
#define ALL_FREE UINT32_MAX

void pages_init(struct pages *pages, struct page_stock *stock)
{
    *pages = (struct pages){.stock = stock};
    list_init(&pages->usable);
    list_init(&pages->full);
}

static void region_free(struct pages *pages, struct page_region *region)
{
    pages->idle_count -= (unsigned)__builtin_popcount(region->free_mask & ~region->purged_mask);
    list_remove(&region->node);
    if (region->purged_mask == 0)
        page_stock_put(pages->stock, region->base);
    else
        mem_region_put(region->base);
    mem_free(region);
}

void pages_deinit(struct pages *pages)
{
    list_move_all(&pages->full, &pages->usable);
    while (!list_is_empty(&pages->usable))
        region_free(pages, LIST_FIRST(&pages->usable, struct page_region, node));
    pages_init(pages, NULL);
}

static struct page_region *region_add(struct pages *pages)
{
    struct page_region *region = mem_zalloc(sizeof(*region));
    bool is_whole;

    if (region == NULL)
        return NULL;
    region->base = page_stock_take(pages->stock, &is_whole);
    if (region->base == NULL) {
        mem_free(region);
        return NULL;
    }
    region->free_mask = ALL_FREE;
    pages->empty_count++;
    if (is_whole)
        pages->idle_count += REGION_PAGES;
    else
        region->purged_mask = ALL_FREE; /* as pages that went back: they have no memory yet */
    list_push_back(&pages->usable, &region->node);
    return region;
}

void *pages_get(struct pages *pages, struct page_region **out)
{
    struct page_region *region = LIST_FIRST(&pages->usable, struct page_region, node);
    unsigned at;

    if (region == NULL)
        region = region_add(pages);
    if (region == NULL)
        return NULL;
    if (region->free_mask == ALL_FREE)
        pages->empty_count--;
    at = (unsigned)__builtin_ctz(region->free_mask);
    region->free_mask &= ~(1u << at);
    if (UNLIKELY((region->purged_mask & 1u << at) != 0)) {
        region->purged_mask &= ~(1u << at);
        if (region->purged_mask == 0)
            mem_region_whole(region->base);
    } else {
        pages->idle_count--;
    }
    if (region->free_mask == 0) {
        list_remove(&region->node);
        list_push_front(&pages->full, &region->node);
    }
    pages->used_count++;
    *out = region;
    return region->base + (size_t)at * PAGES_PAGE_SIZE;
}

void pages_put(struct pages *pages, struct page_region *region, void *page)
{
    size_t at = (size_t)((char *)page - region->base) / PAGES_PAGE_SIZE;

    ASSERT(at < REGION_PAGES);
    ASSERT((region->free_mask & (1u << at)) == 0);
    ASSERT(pages->used_count > 0);
    pages->used_count--;
    if (region->free_mask == 0) {
        list_remove(&region->node);
        list_push_front(&pages->usable, &region->node);
    }
    region->free_mask |= 1u << at;
    pages->idle_count++;
    if (region->free_mask != ALL_FREE) {
        if (pages->idle_count > pages->used_count / IDLE_SHARE + IDLE_MIN) {
            mem_region_purge(region->base, page, PAGES_PAGE_SIZE);
            region->purged_mask |= 1u << at;
            pages->idle_count--;
        }
        return;
    }
    if (pages->empty_count >= EMPTY_KEPT) {
        region_free(pages, region);
        return;
    }
    /* To the end: it fills only when no other can take a page. */
    pages->empty_count++;
    list_remove(&region->node);
    list_push_back(&pages->usable, &region->node);
}
