/* SPDX-License-Identifier: Apache-2.0 */
/* Regions that are touched ahead: K1 to K3 of page_stock.h, and a store whose stock is under way at its end. */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/page_stock.h"
#include "backend/store/pages.h"

#define LONG_US 10000000ull

struct stock_world {
    struct sim *sim;
    struct sim_node *node;
    struct page_stock stock;
    bool is_closed;
};

static void stock_init(struct stock_world *w)
{
    *w = (struct stock_world){.sim = sim_create(1, NULL)};
    w->node = sim_node_create(w->sim, "node");
    page_stock_open(&w->stock, sim_node_io(w->node)); /* nobody has touched anything yet */
}

static void stock_deinit(struct stock_world *w)
{
    sim_node_kill(w->node);
    page_stock_deinit(&w->stock);
    sim_destroy(&w->sim);
}

static void stock_closed(void *arg)
{
    struct stock_world *w = arg;

    assert_false(w->is_closed);
    w->is_closed = true;
}

static void test_it_fills_and_fills_again(void **state)
{
    struct stock_world w;
    char *taken[PAGE_STOCK_MAX + 1];
    bool is_whole;

    (void)state;
    stock_init(&w);
    assert_int_equal(w.stock.ready_count, 0); /* not from inside the call */
    sim_run_for(w.sim, LONG_US);
    assert_int_equal(w.stock.ready_count, PAGE_STOCK_MAX);
    assert_null(w.stock.touching);
    for (unsigned i = 0; i <= PAGE_STOCK_MAX; i++) { /* K2: the last one comes from an empty stock */
        taken[i] = page_stock_take(&w.stock, &is_whole);
        assert_non_null(taken[i]);
        assert_int_equal(is_whole, i < PAGE_STOCK_MAX);
        memset(taken[i], (int)(i + 1), MEM_REGION_SIZE);
    }
    sim_run_for(w.sim, LONG_US);
    assert_int_equal(w.stock.ready_count, PAGE_STOCK_MAX);
    for (unsigned i = 0; i <= PAGE_STOCK_MAX; i++) { /* K1: nobody has written to what was taken */
        for (size_t at = 0; at < MEM_REGION_SIZE; at += 512)
            assert_int_equal(taken[i][at], i + 1);
        page_stock_put(&w.stock, taken[i]); /* K3: it is full */
    }
    assert_int_equal(w.stock.ready_count, PAGE_STOCK_MAX);
    assert_true(page_stock_close(&w.stock, stock_closed, &w));
    stock_deinit(&w);
}

/* What comes back whole is as good as what was touched, and counts with what is under way. */
static void test_what_comes_back_is_kept(void **state)
{
    struct stock_world w;
    void *one, *two;
    bool is_whole;

    (void)state;
    stock_init(&w);
    one = page_stock_take(&w.stock, &is_whole);
    two = page_stock_take(&w.stock, &is_whole);
    page_stock_put(&w.stock, one);
    assert_int_equal(w.stock.ready_count, 1);
    page_stock_put(&w.stock, two); /* one is ready, one is under way */
    assert_int_equal(w.stock.ready_count, 1);
    sim_run_for(w.sim, LONG_US);
    assert_int_equal(w.stock.ready_count, PAGE_STOCK_MAX);
    assert_ptr_equal(w.stock.ready[0], one);
    stock_deinit(&w);
}

/* Where touches are short an empty stock gives whole regions. */
static void test_an_empty_stock_gives_what_is_quick(void **state)
{
    struct stock_world w;
    void *region;
    bool is_whole;

    (void)state;
    stock_init(&w);
    for (uint32_t us = PAGE_STOCK_LONG_US; us <= PAGE_STOCK_LONG_US + 1; us++) {
        w.stock.touch_us = us;
        region = page_stock_take(&w.stock, &is_whole);
        assert_non_null(region);
        assert_int_equal(is_whole, us == PAGE_STOCK_LONG_US);
        mem_region_put(region);
    }
    sim_run_for(w.sim, LONG_US);
    assert_true(w.stock.touch_us > PAGE_STOCK_LONG_US); /* the simulator's take a millisecond */
    stock_deinit(&w);
}

static void test_it_closes_when_nobody_touches(void **state)
{
    struct stock_world w;
    void *region;
    bool is_whole;

    (void)state;
    stock_init(&w);
    assert_false(page_stock_close(&w.stock, stock_closed, &w));
    region = page_stock_take(&w.stock, &is_whole); /* closed: nothing new begins */
    assert_true(is_whole);
    page_stock_put(&w.stock, region);
    assert_int_equal(w.stock.ready_count, 0);
    assert_false(w.is_closed);
    sim_run_for(w.sim, LONG_US);
    assert_true(w.is_closed);
    assert_null(w.stock.touching);
    stock_deinit(&w);
}

static void test_pages_take_from_it(void **state)
{
    struct stock_world w;
    struct pages pages;
    struct page_region *regions[33];
    void *first, *out[33];

    (void)state;
    stock_init(&w);
    sim_run_for(w.sim, LONG_US);
    first = w.stock.ready[w.stock.ready_count - 1];
    pages_init(&pages, &w.stock, false);
    for (unsigned i = 0; i < 33; i++) {
        out[i] = pages_get(&pages, &regions[i]);
        assert_non_null(out[i]);
    }
    assert_ptr_equal(out[0], first);
    assert_int_equal(w.stock.ready_count, 0); /* two regions are out */
    sim_run_for(w.sim, LONG_US);
    (void)page_stock_close(&w.stock, stock_closed, &w);
    for (unsigned i = 0; i < 33; i++)
        pages_put(&pages, regions[i], out[i]);
    pages_deinit(&pages);
    assert_int_equal(w.stock.ready_count, PAGE_STOCK_MAX);
    stock_deinit(&w);
}

/* Of an empty stock, where touches are long, they have no memory until they are out: none of it is idle, and none counts as
 * a page that can be spared. */
static void test_pages_of_an_empty_stock_are_small(void **state)
{
    struct stock_world w;
    struct pages pages;
    struct page_region *regions[32];
    void *out[32];

    (void)state;
    stock_init(&w);
    w.stock.touch_us = PAGE_STOCK_LONG_US + 1;
    pages_init(&pages, &w.stock, false);
    for (unsigned i = 0; i < 32; i++) {
        out[i] = pages_get(&pages, &regions[i]);
        assert_non_null(out[i]);
        memset(out[i], 1, PAGES_PAGE_SIZE);
        assert_ptr_equal(regions[i], regions[0]);
        assert_int_equal(pages.idle_count, 0);
    }
    for (unsigned i = 0; i < 32; i++) {
        pages_put(&pages, regions[i], out[i]);
        assert_int_equal(pages.idle_count, i + 1);
    }
    out[0] = pages_get(&pages, &regions[0]); /* it is whole now, and stays so */
    assert_int_equal(pages.idle_count, 31);
    pages_put(&pages, regions[0], out[0]);
    pages_deinit(&pages);
    assert_int_equal(pages.idle_count, 0);
    stock_deinit(&w);
}

#define CLEAR_PAGES 640u /* of 20 regions */

struct pages_out {
    struct pages pages;
    struct page_region *regions[CLEAR_PAGES];
    void *at[CLEAR_PAGES];
};

static void pages_out_init(struct pages_out *out, struct page_stock *stock, bool is_cleared)
{
    pages_init(&out->pages, stock, is_cleared);
    for (unsigned i = 0; i < CLEAR_PAGES; i++) {
        out->at[i] = pages_get(&out->pages, &out->regions[i]);
        assert_non_null(out->at[i]);
        memset(out->at[i], 1, PAGES_PAGE_SIZE);
    }
}

static void page_out_put(struct pages_out *out, unsigned i)
{
    pages_put(&out->pages, out->regions[i], out->at[i]);
    out->at[i] = NULL;
}

static void clearing_count(void *arg, void *page)
{
    *(unsigned *)arg += page != NULL;
}

/* Every fourth page is given back, of all regions. G2: cleared regions go, until few pages are free; none is added, and nothing
 * is handed out of the one that is cleared. */
static void test_regions_are_cleared(void **state)
{
    static struct pages_out out;
    struct stock_world w;
    unsigned cleared = 0;

    (void)state;
    stock_init(&w);
    pages_out_init(&out, &w.stock, true);
    assert_false(pages_clear(&out.pages));
    for (unsigned i = 0; i < CLEAR_PAGES; i += 4)
        page_out_put(&out, i);
    assert_int_equal(out.pages.idle_count, CLEAR_PAGES - out.pages.used_count); /* all huge still */
    for (; pages_clear(&out.pages); cleared++) {
        const struct page_region *clearing = out.pages.clearing;
        unsigned count = 0;
        void *page;

        pages_clearing_each(&out.pages, clearing_count, &count);
        assert_in_range(count, 1, 31);
        while ((page = pages_clearing(&out.pages)) != NULL) {
            unsigned i = 0;

            while (out.at[i] != page)
                assert_true(++i < CLEAR_PAGES);
            page_out_put(&out, i);
            out.at[i] = pages_get(&out.pages, &out.regions[i]);
            assert_ptr_not_equal(out.regions[i], clearing);
            count--;
        }
        assert_int_equal(count, 0);
        assert_true(cleared < 20);
    }
    assert_in_range(cleared, 3, 4);
    assert_true(out.pages.free_count <= out.pages.used_count / 8);
    for (unsigned i = 0; i < CLEAR_PAGES; i++)
        if (out.at[i] != NULL)
            page_out_put(&out, i);
    assert_int_equal(out.pages.used_count, 0);
    pages_deinit(&out.pages);
    stock_deinit(&w);
}

/* Who cannot move them gives single pages back; who can, only when the free ones are very many. */
static void test_single_pages_go_back(void **state)
{
    static struct pages_out out;
    struct stock_world w;

    (void)state;
    for (unsigned is_cleared = 0; is_cleared < 2; is_cleared++) {
        stock_init(&w);
        pages_out_init(&out, &w.stock, is_cleared);
        for (unsigned i = 0; i < CLEAR_PAGES; i++)
            if (i % 4 != 0)
                page_out_put(&out, i);
        assert_int_equal(out.pages.used_count, CLEAR_PAGES / 4);
        assert_in_range(out.pages.idle_count, 64 + CLEAR_PAGES / (is_cleared ? 8 : 128),
                        64 + CLEAR_PAGES / (is_cleared ? 4 : 32));
        pages_deinit(&out.pages);
        stock_deinit(&w);
    }
}

/* done() of a close comes when the thread has ended, from wherever it is; a kill or a power cut does not wait. */
static void test_a_store_ends_while_it_touches(void **state)
{
    struct world w;

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        world_init(&w, round + 1, NULL);
        w.options.touch_ahead = true;
        world_open(&w);
        assert_non_null(w.store->stock.touching);
        if (round == 1)
            sim_run_for(w.sim, LONG_US);
        world_set(&w, 0, 1, 1, 100);
        store_turn_end(w.store);
        if (round < 2) {
            world_close(&w);
        } else {
            world_die(&w, round == 3);
        }
        world_open(&w);
        world_close(&w);
        world_deinit(&w);
    }
}

/* Without a directory there is nothing to write, so the stock alone is waited for. */
static void test_a_store_of_memory_waits_for_it(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 9, NULL);
    w.options.touch_ahead = true;
    w.options.dir = w.options.ring_path = NULL;
    world_open(&w);
    w.is_told = false;
    store_close(w.store, world_told, &w);
    assert_false(w.is_told);
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    assert_true(w.is_told);
    assert_int_equal(w.err, 0);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_fills_and_fills_again),      cmocka_unit_test(test_what_comes_back_is_kept),
        cmocka_unit_test(test_it_closes_when_nobody_touches), cmocka_unit_test(test_pages_take_from_it),
        cmocka_unit_test(test_pages_of_an_empty_stock_are_small),
        cmocka_unit_test(test_regions_are_cleared),
        cmocka_unit_test(test_single_pages_go_back), cmocka_unit_test(test_an_empty_stock_gives_what_is_quick),
        cmocka_unit_test(test_a_store_ends_while_it_touches), cmocka_unit_test(test_a_store_of_memory_waits_for_it),
    };

    return cmocka_run_group_tests_name("page_stock", tests, NULL, NULL);
}
