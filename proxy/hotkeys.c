/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/hotkeys.h"

#include "common/base/mem.h"

#define FADE_S 60u

uint64_t hotkeys_hash(const char *pool, struct bytes key)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *pool != '\0'; pool++)
        hash = (hash ^ (unsigned char)*pool) * 0x100000001b3u;
    hash = (hash ^ 0xff) * 0x100000001b3u;
    /* Long keys: the head, the tail and the length tell them apart well enough. */
    for (size_t i = 0; i < key.len; i = i == 511 && key.len > 1024 ? key.len - 512 : i + 1)
        hash = (hash ^ (unsigned char)key.data[i]) * 0x100000001b3u;
    hash ^= key.len;
    hash ^= hash >> 32;
    return hash == 0 ? 1 : hash;
}

void hotkeys_add(struct stats_hotkeys *hotkeys, const char *pool, struct bytes key)
{
    uint64_t hash = hotkeys_hash(pool, key);
    struct stats_hot *least = &hotkeys->entries[0];

    if (hotkeys->entries_max == 0)
        return;
    hotkeys->total++;
    for (uint64_t i = 0; i < hotkeys->entries_max; i++) {
        struct stats_hot *entry = &hotkeys->entries[i];

        if (entry->hash == hash) {
            entry->count++;
            return;
        }
        if (entry->count < least->count)
            least = entry;
    }
    stats_write_begin(&hotkeys->sequence);
    least->hash = hash;
    least->error = least->count;
    least->count++;
    stats_key_set(&least->key, key);
    stats_text_set(least->pool, sizeof(least->pool), bytes_of_string(pool));
    stats_write_end(&hotkeys->sequence);
}

void hotkeys_fade(struct stats_hotkeys *hotkeys, uint64_t now_s)
{
    if (hotkeys->faded_s == 0)
        hotkeys->faded_s = now_s;
    if (now_s - MIN(now_s, hotkeys->faded_s) < FADE_S)
        return;
    hotkeys->faded_s = now_s;
    hotkeys->total /= 2;
    for (uint64_t i = 0; i < hotkeys->entries_max; i++) {
        hotkeys->entries[i].count /= 2;
        hotkeys->entries[i].error /= 2;
    }
}

struct stats_hotkeys *hotkeys_copy(const struct stats_hotkeys *hotkeys)
{
    uint64_t entries_max = hotkeys->entries_max;
    size_t size = sizeof(*hotkeys) + entries_max * sizeof(hotkeys->entries[0]);
    struct stats_hotkeys *copy;

    if (entries_max > STATS_HOTKEYS_MAX)
        return NULL;
    copy = must_alloc(size);
    if (!stats_read_locked(hotkeys, copy, size)) {
        mem_free(copy);
        return NULL;
    }
    copy->entries_max = entries_max;
    for (uint64_t i = 0; i < entries_max; i++)
        copy->entries[i].pool[STATS_TEXT_MAX - 1] = '\0';
    return copy;
}
