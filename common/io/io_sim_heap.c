/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap of keys that know their place (from 1), by time; ties go by chance, then by age. */
#include "common/io/io_sim_private.h"

static bool key_is_before(const struct sim_key *a, const struct sim_key *b)
{
    if (a->at != b->at)
        return a->at < b->at;
    if (a->tie != b->tie)
        return a->tie < b->tie;
    return a->seq < b->seq;
}

static void heap_put(struct sim_heap *heap, size_t place, struct sim_key *key)
{
    heap->items[place - 1] = key;
    key->place = place;
}

static void heap_up(struct sim_heap *heap, struct sim_key *key)
{
    size_t place = key->place;

    while (place > 1 && key_is_before(key, heap->items[place / 2 - 1])) {
        heap_put(heap, place, heap->items[place / 2 - 1]);
        place /= 2;
    }
    heap_put(heap, place, key);
}

static void heap_down(struct sim_heap *heap, struct sim_key *key)
{
    size_t place = key->place;

    for (size_t child; (child = place * 2) <= heap->count; place = child) {
        if (child < heap->count && key_is_before(heap->items[child], heap->items[child - 1]))
            child++;
        if (!key_is_before(heap->items[child - 1], key))
            break;
        heap_put(heap, place, heap->items[child - 1]);
    }
    heap_put(heap, place, key);
}

void sim_heap_push(struct sim_heap *heap, struct sim_key *key)
{
    ASSERT(key->place == 0);
    if (heap->count == heap->cap) {
        heap->cap = MAX(heap->cap * 2, (size_t)64);
        heap->items = must_realloc(heap->items, heap->cap * sizeof(struct sim_key *));
    }
    heap->count++;
    heap_put(heap, heap->count, key);
    heap_up(heap, key);
}

void sim_heap_remove(struct sim_heap *heap, struct sim_key *key)
{
    size_t place = key->place;
    struct sim_key *last;

    ASSERT(place >= 1 && place <= heap->count && heap->items[place - 1] == key);
    last = heap->items[heap->count - 1];
    heap->count--;
    key->place = 0;
    if (last == key)
        return;
    heap_put(heap, place, last);
    heap_up(heap, last);
    heap_down(heap, last);
}

struct sim_key *sim_heap_first(const struct sim_heap *heap)
{
    return heap->count == 0 ? NULL : heap->items[0];
}

void sim_heap_deinit(struct sim_heap *heap)
{
    mem_free(heap->items);
    *heap = (struct sim_heap){0};
}
