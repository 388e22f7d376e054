/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/slab.h"

#include "backend/store/pages.h"
#include "common/base/err.h"
#include "common/base/list.h"
#include "common/base/mem.h"

#ifdef DCHECK_ON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)   ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

#define CLASS_COUNT (SLAB_SIZE_MAX / SLAB_STEP)

_Static_assert(SLAB_PAGE_SIZE == PAGES_PAGE_SIZE, "one page of the slab is one of the pool");

#define PAGE_OBJECTS_MAX (SLAB_PAGE_SIZE / SLAB_STEP)
/* To find out what is out of a page all that was given back is looked at: so many cost as much as one that is moved. */
#define MARKED_PER_MOVE 16u

enum page_place { PAGE_DENSE, PAGE_SPARSE, PAGE_LEAVING, PAGE_LIST_COUNT, PAGE_FULL = PAGE_LIST_COUNT };

struct slab_page {
    struct list_node node; /* on its class's list for `place` (B1). A full one is on none: its neighbours would be far away */
    struct page_region *region;
    void *free; /* objects that were given back, threaded through their first word */
    uint32_t class_index;
    uint32_t capacity, used;
    uint32_t carved; /* objects ever handed out: what is above was never touched */
    uint32_t place;  /* enum page_place */
    uint32_t spare[3];
};
/* So that objects of 32 and of 64 bytes are aligned to their size. */
_Static_assert(sizeof(struct slab_page) == 64, "a page's header is one cache line");

/* Before an object that comes from the heap. */
struct slab_large {
    struct list_node node;
};

struct slab_class {
    struct list pages[PAGE_LIST_COUNT];
};

struct slab {
    struct pages pages;
    uint64_t used_bytes, large_bytes;
    struct list large;
    struct slab_class classes[CLASS_COUNT];
};

int slab_create(struct page_stock *stock, bool is_cleared, struct slab **out)
{
    struct slab *slab = mem_zalloc(sizeof(*slab));

    if (slab == NULL)
        return ERR_FULL;
    pages_init(&slab->pages, stock, is_cleared);
    list_init(&slab->large);
    for (size_t i = 0; i < CLASS_COUNT; i++)
        for (size_t place = 0; place < PAGE_LIST_COUNT; place++)
            list_init(&slab->classes[i].pages[place]);
    *out = slab;
    return 0;
}

static char *page_object(const struct slab_page *page, uint32_t at)
{
    return (char *)page + sizeof(*page) + (size_t)at * (page->class_index + 1) * SLAB_STEP;
}

static void page_unpoison(struct slab_page *page)
{
    ASAN_UNPOISON_MEMORY_REGION(page_object(page, 0), SLAB_PAGE_SIZE - sizeof(*page));
}

void slab_destroy(struct slab **slab_at)
{
    struct slab *slab = *slab_at;

    if (slab == NULL)
        return;
    for (size_t i = 0; i < CLASS_COUNT; i++)
        for (size_t place = 0; place < PAGE_LIST_COUNT; place++) /* of a full one nothing is poisoned */
            LIST_FOR_EACH(&slab->classes[i].pages[place], node)
                page_unpoison(CONTAINER_OF(node, struct slab_page, node));
    while (!list_is_empty(&slab->large))
        mem_free(CONTAINER_OF(list_pop_front(&slab->large), struct slab_large, node));
    pages_deinit(&slab->pages);
    mem_free(slab);
    *slab_at = NULL;
}

static void page_unlist(struct slab_page *page)
{
    if (page->place != PAGE_FULL)
        list_remove(&page->node);
}

static void page_move(struct slab *slab, struct slab_page *page, enum page_place next)
{
    struct slab_class *class = &slab->classes[page->class_index];

    page_unlist(page);
    page->place = next;
    if (next != PAGE_FULL)
        list_push_front(&class->pages[next], &page->node);
    ASSERT((next == PAGE_FULL) == (page->used == page->capacity) || next == PAGE_LEAVING);
}

/* A new page counts as dense: it is about to be filled. */
static NOINLINE struct slab_page *page_add(struct slab *slab, uint32_t class_index)
{
    struct page_region *region;
    struct slab_page *page = pages_get(&slab->pages, &region);
    uint32_t size = (class_index + 1) * SLAB_STEP;

    if (page == NULL)
        return NULL;
    *page = (struct slab_page){
        .region = region,
        .class_index = class_index,
        .capacity = (uint32_t)((SLAB_PAGE_SIZE - sizeof(*page)) / size),
        .place = PAGE_DENSE,
    };
    ASAN_POISON_MEMORY_REGION(page_object(page, 0), (size_t)page->capacity * size);
    list_push_front(&slab->classes[class_index].pages[PAGE_DENSE], &page->node);
    return page;
}

static struct slab_page *class_page(struct slab *slab, uint32_t class_index)
{
    struct slab_class *class = &slab->classes[class_index];
    struct slab_page *page = LIST_FIRST(&class->pages[PAGE_DENSE], struct slab_page, node);

    if (LIKELY(page != NULL))
        return page;
    page = LIST_FIRST(&class->pages[PAGE_SPARSE], struct slab_page, node);
    return page != NULL ? page : page_add(slab, class_index);
}

static void *large_get(struct slab *slab, size_t size)
{
    struct slab_large *large = mem_alloc(sizeof(*large) + size);

    if (large == NULL)
        return NULL;
    large->node = (struct list_node){0};
    list_push_back(&slab->large, &large->node);
    slab->large_bytes += mem_usable(large);
    slab->used_bytes += slab_charge(size);
    return large + 1;
}

void *slab_get(struct slab *slab, size_t size)
{
    struct slab_page *page;
    void *object;

    ASSERT(size > 0);
    if (UNLIKELY(size > SLAB_SIZE_MAX))
        return large_get(slab, size);
    page = class_page(slab, (uint32_t)((size - 1) / SLAB_STEP));
    if (UNLIKELY(page == NULL))
        return NULL;
    object = page->free;
    if (object != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(object, slab_charge(size)); /* its owner may use all of the class */
        memcpy(&page->free, object, sizeof(page->free));
    } else {
        ASSERT(page->carved < page->capacity);
        object = page_object(page, page->carved++);
        ASAN_UNPOISON_MEMORY_REGION(object, slab_charge(size)); /* its owner may use all of the class */
    }
    page->used++;
    slab->used_bytes += slab_charge(size);
    if (UNLIKELY(page->used == page->capacity))
        page_move(slab, page, PAGE_FULL);
    else if (UNLIKELY(page->place == PAGE_SPARSE && page->used >= page->capacity / 2))
        page_move(slab, page, PAGE_DENSE);
    return object;
}

static struct slab_page *page_of(const void *object)
{
    return (struct slab_page *)((uintptr_t)object & ~(uintptr_t)(SLAB_PAGE_SIZE - 1));
}

static void large_put(struct slab *slab, void *object, size_t size)
{
    struct slab_large *large = (struct slab_large *)object - 1;
    size_t usable = mem_usable(large);

    ASSERT(slab->large_bytes >= usable);
    slab->large_bytes -= usable;
    slab->used_bytes -= slab_charge(size);
    list_remove(&large->node);
    mem_free(large);
}

void slab_put(struct slab *slab, void *object, size_t size)
{
    struct slab_page *page;

    ASSERT(slab->used_bytes >= slab_charge(size));
    if (UNLIKELY(size > SLAB_SIZE_MAX)) {
        large_put(slab, object, size);
        return;
    }
    page = page_of(object);
    ASSERT(page->class_index == (size - 1) / SLAB_STEP);
    ASSERT(page->used > 0);
    memcpy(object, &page->free, sizeof(page->free));
    ASAN_POISON_MEMORY_REGION(object, slab_charge(size));
    page->free = object;
    page->used--;
    slab->used_bytes -= slab_charge(size);
    if (UNLIKELY(page->used == 0)) {
        page_unlist(page);
        page_unpoison(page);
        pages_put(&slab->pages, page->region, page);
    } else if (UNLIKELY(page->place != PAGE_SPARSE && page->place != PAGE_LEAVING &&
                        page->used < page->capacity / 4)) {
        page_move(slab, page, PAGE_SPARSE);
    } else if (UNLIKELY(page->place == PAGE_FULL)) {
        page_move(slab, page, PAGE_DENSE);
    }
}

/* The first sparse page is where objects go when there is no dense one: moving its own would be a circle. */
bool slab_is_sparse(const struct slab *slab, const void *object, size_t size)
{
    const struct slab_class *class;
    const struct slab_page *page;

    if (size > SLAB_SIZE_MAX)
        return false;
    page = page_of(object);
    class = &slab->classes[page->class_index];
    return page->place == PAGE_SPARSE && (!list_is_empty(&class->pages[PAGE_DENSE]) ||
                                          list_first(&class->pages[PAGE_SPARSE]) != &page->node);
}

/* ---- clearing (B3) ------------------------------------------------------------------------------ */

static void page_leave(void *arg, void *at)
{
    page_move(arg, at, PAGE_LEAVING);
}

static void page_stay(void *arg, void *at)
{
    const struct slab_page *page = at;

    page_move(arg, at, page->used == page->capacity      ? PAGE_FULL
                       : page->used < page->capacity / 4 ? PAGE_SPARSE
                                                         : PAGE_DENSE);
}

static void free_mark(const struct slab_page *page, uint64_t *is_free)
{
    size_t size = (size_t)(page->class_index + 1) * SLAB_STEP;

    for (char *object = page->free, *next; object != NULL; object = next) {
        size_t at = (size_t)(object - page_object(page, 0)) / size;

        is_free[at / 64] |= UINT64_C(1) << at % 64;
        ASAN_UNPOISON_MEMORY_REGION(object, sizeof(next));
        memcpy(&next, object, sizeof(next));
        ASAN_POISON_MEMORY_REGION(object, sizeof(next));
    }
}

/* Offers `count` of its objects. With its last one the page is gone. */
static void page_offer(const struct slab_page *page, uint32_t count, void (*move)(void *arg, void *object), void *arg)
{
    uint64_t is_free[PAGE_OBJECTS_MAX / 64] = {0};

    free_mark(page, is_free);
    for (uint32_t at = 0; count > 0; at++) {
        if ((is_free[at / 64] & UINT64_C(1) << at % 64) != 0)
            continue;
        move(arg, page_object(page, at));
        count--;
    }
}

static struct slab_page *page_to_clear(struct slab *slab)
{
    if (pages_clearing(&slab->pages) == NULL && UNLIKELY(pages_clear(&slab->pages)))
        pages_clearing_each(&slab->pages, page_leave, slab);
    return pages_clearing(&slab->pages);
}

bool slab_clear(struct slab *slab, uint32_t budget, void (*move)(void *arg, void *object), void *arg)
{
    struct slab_page *page = page_to_clear(slab);
    bool is_any = page != NULL;

    while (page != NULL && budget > 0) {
        uint32_t used = page->used, count = MIN(used, budget), marked = page->carved - used;
        struct slab_page *next;

        page_offer(page, count, move, arg);
        budget -= MIN(budget, count + marked / MARKED_PER_MOVE);
        next = pages_clearing(&slab->pages);
        if (next == page && page->used != used - count) {
            pages_clearing_each(&slab->pages, page_stay, slab);
            pages_clear_stop(&slab->pages);
            return false;
        }
        page = next;
    }
    return is_any;
}

uint64_t slab_used_bytes(const struct slab *slab)
{
    return slab->used_bytes;
}

uint64_t slab_page_bytes(const struct slab *slab)
{
    return slab->pages.used_count * SLAB_PAGE_SIZE + slab->large_bytes;
}
