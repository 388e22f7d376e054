/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/nameset.h"
#include "common/base/mem.h"

static uint64_t nameset_hash(const struct nameset *set, struct bytes name)
{
    uint64_t hash = set->seed ^ 0xcbf29ce484222325u;

    for (size_t i = 0; i < name.len; i++)
        hash = (hash ^ (unsigned char)name.data[i]) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

/* The table place of the name, or UINT32_MAX. */
static uint32_t nameset_find(const struct nameset *set, struct bytes name, uint64_t hash)
{
    uint32_t mask = set->cap * 2 - 1;

    if (set->cap == 0)
        return UINT32_MAX;
    for (uint32_t at = (uint32_t)hash & mask; set->table[at] != 0; at = (at + 1) & mask) {
        const struct nameset_entry *entry = &set->entries[set->table[at] - 1];

        if (entry->data != NULL && entry->hash == hash &&
            bytes_equal(bytes_of(entry->data, entry->len), name))
            return at;
    }
    return UINT32_MAX;
}

/* Drops the holes and makes room for at least one more. */
static int nameset_grow(struct nameset *set)
{
    uint32_t cap = 8;
    struct nameset grown = {.seed = set->seed};

    while (cap < set->count * 2 + 1)
        cap *= 2;
    if (set->count >= NAMESET_MAX)
        return ERR_FULL;
    grown.entries = mem_alloc(sizeof(*grown.entries) * cap);
    grown.table = mem_zalloc(sizeof(*grown.table) * cap * 2);
    if (grown.entries == NULL || grown.table == NULL) {
        mem_free(grown.entries);
        mem_free(grown.table);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < set->used; i++) {
        uint32_t at;

        if (set->entries[i].data == NULL)
            continue;
        at = (uint32_t)set->entries[i].hash & (cap * 2 - 1);
        while (grown.table[at] != 0)
            at = (at + 1) & (cap * 2 - 1);
        grown.entries[grown.used++] = set->entries[i];
        grown.table[at] = grown.used;
    }
    mem_free(set->entries);
    mem_free(set->table);
    grown.count = set->count;
    grown.cap = cap;
    *set = grown;
    return 0;
}

int nameset_add(struct nameset *set, struct bytes name)
{
    uint64_t hash = nameset_hash(set, name);
    uint32_t at, mask;
    char *copy;

    if (nameset_find(set, name, hash) != UINT32_MAX)
        return ERR_EXISTS;
    if (set->used == set->cap) {
        int err = nameset_grow(set);

        if (err != 0)
            return err;
    }
    copy = mem_alloc(MAX(name.len, (size_t)1));
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, name.data, name.len);
    mask = set->cap * 2 - 1;
    at = (uint32_t)hash & mask;
    while (set->table[at] != 0)
        at = (at + 1) & mask;
    set->entries[set->used++] =
        (struct nameset_entry){.data = copy, .len = (uint32_t)name.len, .hash = hash};
    set->table[at] = set->used;
    set->count++;
    return 0;
}

int nameset_remove(struct nameset *set, struct bytes name)
{
    uint32_t at = nameset_find(set, name, nameset_hash(set, name));
    struct nameset_entry *entry;

    if (at == UINT32_MAX)
        return ERR_NOT_FOUND;
    /* The place in the table stays taken by the hole until the next growth: searches go on over it. */
    entry = &set->entries[set->table[at] - 1];
    mem_free(entry->data);
    entry->data = NULL;
    set->count--;
    return 0;
}

bool nameset_has(const struct nameset *set, struct bytes name)
{
    return nameset_find(set, name, nameset_hash(set, name)) != UINT32_MAX;
}

bool nameset_next(const struct nameset *set, uint32_t *at, struct bytes *name)
{
    while (*at < set->used) {
        const struct nameset_entry *entry = &set->entries[(*at)++];

        if (entry->data != NULL) {
            *name = bytes_of(entry->data, entry->len);
            return true;
        }
    }
    return false;
}

void nameset_deinit(struct nameset *set)
{
    for (uint32_t i = 0; i < set->used; i++)
        mem_free(set->entries[i].data);
    mem_free(set->entries);
    mem_free(set->table);
    *set = (struct nameset){.seed = set->seed};
}
