/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/pages.h"

#include "backend/store/page_stock.h"
#include "common/base/mem.h"

#define REGION_PAGES (MEM_REGION_SIZE / PAGES_PAGE_SIZE)
#define EMPTY_KEPT   1u
/* Free pages that keep their memory: this share of those in use, and some; more where they will be cleared. */
#define IDLE_SHARE         32u
#define IDLE_SHARE_CLEARED 4u
#define IDLE_MIN           64u
/* Free pages in regions that are not empty, from which on those are cleared, until it is half of that. */
#define CLEAR_SHARE 16u
#define CLEAR_MIN   64u

struct page_region {
    struct list_node node; /* G1 */
    char *base;            /* owns */
    uint32_t free_mask;    /* bit i: page i is free */
    uint32_t purged_mask;  /* ... and its memory went back */
};

_Static_assert(REGION_PAGES == 32, "a region's pages are the bits of a mask");
#define ALL_FREE UINT32_MAX

void pages_init(struct pages *pages, struct page_stock *stock, bool is_cleared)
{
    *pages = (struct pages){.stock = stock, .is_cleared = is_cleared};
    for (unsigned i = 0; i < PAGES_FILLS; i++)
        list_init(&pages->usable[i]);
    list_init(&pages->full);
}

static unsigned free_count_of(const struct page_region *region)
{
    return (unsigned)__builtin_popcount(region->free_mask);
}

static unsigned hole_count_of(const struct page_region *region)
{
    return (unsigned)__builtin_popcount(region->purged_mask);
}

/* The list that it belongs on (G1). */
static struct list *home_of(struct pages *pages, const struct page_region *region)
{
    return region->free_mask == 0 ? &pages->full
                                  : &pages->usable[(REGION_PAGES - free_count_of(region)) / (REGION_PAGES / PAGES_FILLS)];
}

static void region_free(struct pages *pages, struct page_region *region)
{
    pages->idle_count -= free_count_of(region) - hole_count_of(region);
    list_remove(&region->node);
    if (region->purged_mask == 0)
        page_stock_put(pages->stock, region->base);
    else
        mem_region_put(region->base);
    mem_free(region);
}

static void regions_free(struct pages *pages, struct list *regions)
{
    while (!list_is_empty(regions))
        region_free(pages, LIST_FIRST(regions, struct page_region, node));
}

void pages_deinit(struct pages *pages)
{
    for (unsigned i = 0; i < PAGES_FILLS; i++)
        regions_free(pages, &pages->usable[i]);
    regions_free(pages, &pages->full);
    pages_init(pages, NULL, false);
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
    pages->free_count += REGION_PAGES;
    list_push_back(home_of(pages, region), &region->node);
    return region;
}

static struct page_region *fullest_usable(const struct pages *pages)
{
    for (unsigned i = PAGES_FILLS; i-- > 0;)
        if (!list_is_empty(&pages->usable[i]))
            return LIST_FIRST(&pages->usable[i], struct page_region, node);
    return NULL;
}

void *pages_get(struct pages *pages, struct page_region **out)
{
    struct page_region *region = fullest_usable(pages);
    struct list *home;
    unsigned at;

    if (region == NULL)
        region = region_add(pages);
    if (region == NULL)
        return NULL;
    home = home_of(pages, region);
    if (region->free_mask == ALL_FREE)
        pages->empty_count--;
    at = (unsigned)__builtin_ctz(region->free_mask);
    region->free_mask &= ~(1u << at);
    pages->free_count--;
    if (UNLIKELY((region->purged_mask & 1u << at) != 0)) {
        region->purged_mask &= ~(1u << at);
        if (region->purged_mask == 0)
            mem_region_whole(region->base);
    } else {
        pages->idle_count--;
    }
    if (home_of(pages, region) != home) {
        list_remove(&region->node);
        list_push_front(home_of(pages, region), &region->node);
    }
    pages->used_count++;
    *out = region;
    return region->base + (size_t)at * PAGES_PAGE_SIZE;
}

static void page_purge(struct pages *pages, struct page_region *region, unsigned at)
{
    mem_region_purge(region->base, region->base + (size_t)at * PAGES_PAGE_SIZE, PAGES_PAGE_SIZE);
    region->purged_mask |= 1u << at;
    pages->idle_count--;
}

static bool has_idle_too_many(const struct pages *pages)
{
    return pages->idle_count > pages->used_count / (pages->is_cleared ? IDLE_SHARE_CLEARED : IDLE_SHARE) + IDLE_MIN;
}

static void clearing_put(struct pages *pages, struct page_region *region)
{
    if (region->free_mask != ALL_FREE)
        return;
    pages->clearing = NULL;
    region_free(pages, region);
}

void pages_put(struct pages *pages, struct page_region *region, void *page)
{
    unsigned at = (unsigned)((size_t)((char *)page - region->base) / PAGES_PAGE_SIZE);
    struct list *home = home_of(pages, region);

    ASSERT(at < REGION_PAGES);
    ASSERT((region->free_mask & (1u << at)) == 0);
    ASSERT(pages->used_count > 0);
    pages->used_count--;
    region->free_mask |= 1u << at;
    pages->idle_count++;
    if (UNLIKELY(region == pages->clearing)) {
        clearing_put(pages, region);
        return;
    }
    pages->free_count++;
    if (region->free_mask == ALL_FREE) {
        if (pages->empty_count >= EMPTY_KEPT) {
            pages->free_count -= REGION_PAGES;
            region_free(pages, region);
            return;
        }
        /* To the end: it fills only when no other can take a page. */
        pages->empty_count++;
        list_remove(&region->node);
        list_push_back(home_of(pages, region), &region->node);
        return;
    }
    if (home_of(pages, region) != home) {
        list_remove(&region->node);
        list_push_front(home_of(pages, region), &region->node);
    }
    if (UNLIKELY(has_idle_too_many(pages)))
        page_purge(pages, region, at);
}

/* Where pages are free, but not all of them. */
static uint64_t scattered_count(const struct pages *pages)
{
    return pages->free_count - (uint64_t)pages->empty_count * REGION_PAGES;
}

/* The emptiest that has a page out and that the others have room for (G2): its own free pages are among those that are
 * scattered. */
static struct page_region *region_to_clear(const struct pages *pages)
{
    if (scattered_count(pages) < REGION_PAGES)
        return NULL;
    for (unsigned i = 0; i < PAGES_FILLS; i++) {
        struct page_region *region = LIST_FIRST(&pages->usable[i], struct page_region, node);

        /* An empty one that is kept is the last. */
        if (region != NULL && region->free_mask != ALL_FREE)
            return region;
    }
    return NULL;
}

bool pages_clear(struct pages *pages)
{
    uint64_t most = pages->used_count / CLEAR_SHARE + CLEAR_MIN;
    struct page_region *region = NULL;

    ASSERT(pages->is_cleared && pages->clearing == NULL);
    if (UNLIKELY(scattered_count(pages) > (pages->is_clearing ? most / 2 : most)))
        region = region_to_clear(pages);
    pages->is_clearing = region != NULL;
    if (LIKELY(region == NULL))
        return false;
    pages->free_count -= free_count_of(region);
    list_remove(&region->node);
    list_push_back(&pages->full, &region->node);
    pages->clearing = region;
    return true;
}

void pages_clear_stop(struct pages *pages)
{
    struct page_region *region = pages->clearing;

    pages->clearing = NULL;
    pages->is_clearing = false;
    pages->free_count += free_count_of(region);
    list_remove(&region->node);
    list_push_front(home_of(pages, region), &region->node);
}

void *pages_clearing(const struct pages *pages)
{
    const struct page_region *region = pages->clearing;

    return region == NULL ? NULL : region->base + (size_t)__builtin_ctz(~region->free_mask) * PAGES_PAGE_SIZE;
}

void pages_clearing_each(const struct pages *pages, void (*each)(void *arg, void *page), void *arg)
{
    const struct page_region *region = pages->clearing;

    for (unsigned at = 0; at < REGION_PAGES; at++)
        if ((region->free_mask & 1u << at) == 0)
            each(arg, region->base + (size_t)at * PAGES_PAGE_SIZE);
}
