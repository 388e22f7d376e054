/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - 64-KiB pages out of huge pages.
 *
 *     region: 2 MiB, aligned     [page][page] ... 32 of them
 *
 * Entries and buckets are touched at random, so most of the cost of a look-up is finding where memory is:
 * with 2-MiB pages of the machine one TLB entry covers 2 MiB. Regions come from a stock (page_stock.h); one of small pages
 * is as one whose pages had all gone back, until all are out. A region whose
 * pages are all free goes back to it or to the operating system; one is kept, so that a page more, a page less costs no
 * system call.
 *
 * A region of which a single page went back is no huge page any more: all that is left in it is slower to find, on some
 * machines ten times and more. So pages come from the fullest regions, and an owner that can move what is in its pages is asked
 * to clear the emptiest region when too many are free. Single pages go back, too, but from owners that cannot only when that
 * is not enough.
 *
 *   G1  A region is on the list of its fill (usable), or on `full`; the one that is cleared is on `full`, too.
 *   G2  `free_count` is that of usable regions, and a region is cleared only if the others that are not empty have room for
 *       its pages: so clearing adds no region, and each that is cleared is one less.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/list.h"

#define PAGES_PAGE_BITS 16u
#define PAGES_PAGE_SIZE (1u << PAGES_PAGE_BITS)

struct page_region;
struct page_stock;

#define PAGES_FILLS 4u /* quarters of a region */

struct pages {
    struct page_stock *stock; /* borrows; NULL: none */
    struct list usable[PAGES_FILLS]; /* regions with a free page, the emptiest first */
    struct list full;
    struct page_region *clearing; /* NULL: none */
    bool is_cleared;      /* by its owner, who calls pages_clear() again and again */
    bool is_clearing;     /* one region after the other, until few pages are free */
    uint32_t empty_count; /* of usable regions: those of which no page is out */
    uint64_t used_count;  /* pages that are out */
    uint64_t free_count;
    uint64_t idle_count;  /* free ones that have their memory still, of all regions */
};

void pages_init(struct pages *pages, struct page_stock *stock, bool is_cleared);
/* Gives everything back, also pages that are out. */
void pages_deinit(struct pages *pages);
/* Contents undefined; aligned to its size. NULL: out of memory. */
MUST_USE void *pages_get(struct pages *pages, struct page_region **region);
void pages_put(struct pages *pages, struct page_region *region, void *page);

/* Whether a region is to be cleared: no page of it is handed out any more then, and its owner gives back what
 * pages_clearing() names, one after the other, until that is NULL. With its last page the region is gone. */
MUST_USE bool pages_clear(struct pages *pages);
void *pages_clearing(const struct pages *pages);
/* All that is out of the region that is cleared. */
void pages_clearing_each(const struct pages *pages, void (*each)(void *arg, void *page), void *arg);
/* Leaves it as it is. */
void pages_clear_stop(struct pages *pages);
