/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_stock.h - regions of memory whose pages are there already, before they are needed.
 *
 * The first touch of a huge page makes the kernel find and clear 2 MiB, and a hypervisor below it perhaps as much again:
 * 0.1 to several milliseconds, in the middle of somebody's SET. So a thread does it ahead of need (io_touch()).
 *
 *   K1  A region is of one at a time: io that touches it, the stock, or who has taken it.
 *   K2  Nobody waits for the stock: from an empty one comes a region that was not touched. It is of small pages if the last
 *       touch was a long one, so that each of its own is short; the system joins them later, by and by. While the stock is
 *       not open, as in a recovery, regions are whole: nobody is served then.
 *   K3  It has PAGE_STOCK_MAX regions at most, those under way counted.
 */
#pragma once
#include "common/base/base.h"
#include "common/io/io.h"

#define PAGE_STOCK_MAX     2u
#define PAGE_STOCK_LONG_US 300u /* of processor time, for a region's touch */

struct page_stock {
    struct io *io; /* NULL: closed, or never opened */
    struct io_op op;
    void *ready[PAGE_STOCK_MAX]; /* owns */
    uint32_t ready_count;
    void *touching;              /* io's; NULL: none */
    uint32_t touch_us;           /* what the last touch took */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* One that is all zeros is valid: it hands out what was not touched. */
void page_stock_open(struct page_stock *stock, struct io *io);
/* False: a thread still touches; closed() tells when it has ended. */
bool page_stock_close(struct page_stock *stock, void (*closed)(void *arg), void *arg);
/* Gives all back. Closed before, or its io is gone. */
void page_stock_deinit(struct page_stock *stock);
/* A region of mem.h, whole or (*is_whole: false) of small pages. `stock` may be NULL. NULL: out of memory. */
MUST_USE void *page_stock_take(struct page_stock *stock, bool *is_whole);
/* One that was in use comes back whole, to the stock or to the system. */
void page_stock_put(struct page_stock *stock, void *region);
