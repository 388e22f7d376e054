/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/keymap.h"

#include "common/base/mem.h"

#define BUCKETS_FIRST 64u

void keymap_init(struct keymap *map, uint64_t seed)
{
    *map = (struct keymap){.seed = seed};
}

void keymap_deinit(struct keymap *map)
{
    ASSERT(map->count == 0);
    mem_free(map->buckets);
    map->buckets = NULL;
    map->bucket_count = 0;
}

/* Eight bytes a step, multiplied and folded: as wyhash does. */
static uint64_t keymap_hash(const struct keymap *map, uint8_t db, struct bytes name)
{
    uint64_t hash = map->seed ^ ((uint64_t)db << 56 | name.len);

    for (size_t at = 0; at < name.len; at += 8) {
        uint64_t word = 0;
        unsigned __int128 product;

        memcpy(&word, name.data + at, MIN(name.len - at, (size_t)8));
        product = (unsigned __int128)(hash ^ word ^ 0xa0761d6478bd642full) * 0xe7037ed1a0b428dbull;
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ map->seed;
    }
    return hash ^ hash >> 32;
}

static struct keymap_node *find(const struct keymap *map, uint64_t hash, uint8_t db, struct bytes name)
{
    struct keymap_node *node = map->count == 0 ? NULL : map->buckets[hash & (map->bucket_count - 1)];

    while (node != NULL && !(node->hash_ == hash && node->db == db && bytes_equal(node->name, name)))
        node = node->next_;
    return node;
}

struct keymap_node *keymap_find(const struct keymap *map, uint8_t db, struct bytes name)
{
    return map->count == 0 ? NULL : find(map, keymap_hash(map, db, name), db, name);
}

static bool keymap_grow(struct keymap *map)
{
    uint32_t count = map->bucket_count == 0 ? BUCKETS_FIRST : map->bucket_count * 2;
    struct keymap_node **buckets = mem_zalloc(count * sizeof(struct keymap_node *));

    if (buckets == NULL)
        return map->bucket_count != 0;
    for (uint32_t i = 0; i < map->bucket_count; i++) {
        struct keymap_node *node = map->buckets[i];

        while (node != NULL) {
            struct keymap_node *next = node->next_;

            node->next_ = buckets[node->hash_ & (count - 1)];
            buckets[node->hash_ & (count - 1)] = node;
            node = next;
        }
    }
    mem_free(map->buckets);
    map->buckets = buckets;
    map->bucket_count = count;
    return true;
}

bool keymap_insert(struct keymap *map, struct keymap_node *node, uint8_t db, struct bytes name)
{
    struct keymap_node **bucket;
    char *copy;

    DCHECK(keymap_find(map, db, name) == NULL);
    if (map->count >= map->bucket_count && !keymap_grow(map))
        return false;
    copy = mem_alloc(name.len + 1);
    if (copy == NULL)
        return false;
    if (name.len > 0)
        memcpy(copy, name.data, name.len);
    node->name = bytes_of(copy, name.len);
    node->db = db;
    node->hash_ = keymap_hash(map, db, name);
    bucket = &map->buckets[node->hash_ & (map->bucket_count - 1)];
    node->next_ = *bucket;
    *bucket = node;
    map->count++;
    return true;
}

void keymap_remove(struct keymap *map, struct keymap_node *node)
{
    struct keymap_node **at = &map->buckets[node->hash_ & (map->bucket_count - 1)];

    ASSERT(map->count > 0);
    while (*at != node)
        at = &(*at)->next_;
    *at = node->next_;
    map->count--;
    mem_free((void *)(uintptr_t)node->name.data);
    node->name = BYTES_EMPTY;
    if (map->count == 0)
        keymap_deinit(map);
}
