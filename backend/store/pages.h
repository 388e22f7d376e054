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
 * system call. Single pages that are free go back when they are many.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/list.h"

#define PAGES_PAGE_BITS 16u
#define PAGES_PAGE_SIZE (1u << PAGES_PAGE_BITS)

struct page_region;
struct page_stock;

struct pages {
    struct page_stock *stock; /* borrows; NULL: none */
    struct list usable; /* regions with a free page */
    struct list full;
    uint32_t empty_count; /* of usable regions: those of which no page is out */
    uint64_t used_count;  /* pages that are out */
    uint64_t idle_count;  /* free ones that have their memory still, of all regions */
};

void pages_init(struct pages *pages, struct page_stock *stock);
/* Gives everything back, also pages that are out. */
void pages_deinit(struct pages *pages);
/* Contents undefined; aligned to its size. NULL: out of memory. */
MUST_USE void *pages_get(struct pages *pages, struct page_region **region);
void pages_put(struct pages *pages, struct page_region *region, void *page);
