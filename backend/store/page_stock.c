/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/page_stock.h"

#include "common/base/mem.h"

static void fill(struct page_stock *stock);

static void touched(struct io_op *op)
{
    struct page_stock *stock = CONTAINER_OF(op, struct page_stock, op);
    void *region = stock->touching;
    bool is_touched = op->result >= 0;

    stock->touching = NULL;
    if (stock->io == NULL) {
        mem_region_put(region);
        stock->closed(stock->closed_arg);
        return;
    }
    ASSERT(stock->ready_count < PAGE_STOCK_MAX);
    stock->ready[stock->ready_count++] = region;
    if (!is_touched)
        return;
    stock->touch_us = (uint32_t)op->result;
    fill(stock);
}

static void fill(struct page_stock *stock)
{
    if (stock->io == NULL || stock->touching != NULL || stock->ready_count == PAGE_STOCK_MAX)
        return;
    stock->touching = mem_region_get(true);
    if (stock->touching == NULL)
        return;
    stock->op.done = touched;
    io_touch(stock->io, &stock->op, stock->touching, MEM_REGION_SIZE);
}

void page_stock_open(struct page_stock *stock, struct io *io)
{
    stock->io = io;
    fill(stock);
}

bool page_stock_close(struct page_stock *stock, void (*closed)(void *arg), void *arg)
{
    stock->io = NULL;
    stock->closed = closed;
    stock->closed_arg = arg;
    return stock->touching == NULL;
}

void page_stock_deinit(struct page_stock *stock)
{
    while (stock->ready_count > 0)
        mem_region_put(stock->ready[--stock->ready_count]);
    if (stock->touching != NULL)
        mem_region_put(stock->touching);
    *stock = (struct page_stock){0};
}

void *page_stock_take(struct page_stock *stock, bool *is_whole)
{
    void *region = NULL;

    *is_whole = true;
    if (stock == NULL || stock->io == NULL)
        return mem_region_get(true);
    if (stock->ready_count > 0)
        region = stock->ready[--stock->ready_count];
    fill(stock);
    if (region != NULL)
        return region;
    *is_whole = stock->touch_us <= PAGE_STOCK_LONG_US;
    return mem_region_get(*is_whole);
}

void page_stock_put(struct page_stock *stock, void *region)
{
    if (stock == NULL || stock->io == NULL || stock->ready_count + (stock->touching != NULL) == PAGE_STOCK_MAX)
        mem_region_put(region);
    else
        stock->ready[stock->ready_count++] = region;
}
