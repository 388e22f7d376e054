/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/slowlog.h"

#include "common/base/mem.h"

void slowlog_add(struct stats_slowlog *slowlog, const struct stats_slow *slow)
{
    uint64_t number = slowlog->count;
    struct stats_slow *entry;

    if (slowlog->entries_max == 0)
        return;
    entry = &slowlog->entries[number % slowlog->entries_max];
    __atomic_store_n(&entry->sequence, 2 * number + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)entry + sizeof(entry->sequence), (const char *)slow + sizeof(slow->sequence),
           sizeof(*slow) - sizeof(slow->sequence));
    __atomic_store_n(&entry->sequence, 2 * (number + 1), __ATOMIC_RELEASE);
    __atomic_store_n(&slowlog->count, number + 1, __ATOMIC_RELEASE);
}

static void text_end(char *text, size_t size)
{
    text[size - 1] = '\0';
}

bool slowlog_get(const struct stats_slowlog *slowlog, uint64_t index, struct stats_slow *out)
{
    uint64_t count = __atomic_load_n(&slowlog->count, __ATOMIC_ACQUIRE);

    if (index >= count || count - index > slowlog->entries_max)
        return false;
    if (!stats_read_locked(&slowlog->entries[index % slowlog->entries_max], out, sizeof(*out)) ||
        out->sequence != 2 * (index + 1))
        return false;
    text_end(out->command, sizeof(out->command));
    text_end(out->pool, sizeof(out->pool));
    text_end(out->server, sizeof(out->server));
    text_end(out->client, sizeof(out->client));
    return true;
}

void slowlog_merge(struct stats_slowlog *into, const struct stats_slowlog *from)
{
    uint64_t count = __atomic_load_n(&from->count, __ATOMIC_ACQUIRE);
    uint64_t first = count > from->entries_max ? count - from->entries_max : 0;

    for (uint64_t i = first; i < count; i++) {
        struct stats_slow slow;

        if (slowlog_get(from, i, &slow))
            slowlog_add(into, &slow);
    }
}

/* ---- big keys ---------------------------------------------------------------------------------- */

void bigkeys_add(struct stats_bigkeys *bigkeys, const struct stats_big *big)
{
    struct stats_big *place = &bigkeys->entries[0];
    uint64_t hash = big->hash == 0 ? 1 : big->hash;

    for (uint32_t i = 0; i < STATS_BIGKEYS_MAX; i++) {
        struct stats_big *entry = &bigkeys->entries[i];

        if (entry->hash == hash) {
            place = entry;
            break;
        }
        if (entry->at_us < place->at_us)
            place = entry;
    }
    stats_write_begin(&bigkeys->sequence);
    if (place->hash == hash) {
        place->count += big->count;
        place->size = MAX(place->size, big->size);
        place->at_us = MAX(place->at_us, big->at_us);
        memcpy(place->command, big->command, sizeof(place->command));
        memcpy(place->server, big->server, sizeof(place->server));
    } else {
        *place = *big;
        place->hash = hash;
    }
    stats_write_end(&bigkeys->sequence);
}

void bigkeys_merge(struct stats_bigkeys *into, const struct stats_bigkeys *from)
{
    struct stats_bigkeys *copy = must_alloc(sizeof(*copy));

    if (stats_read_locked(from, copy, sizeof(*copy))) {
        for (uint32_t i = 0; i < STATS_BIGKEYS_MAX; i++) {
            struct stats_big *entry = &copy->entries[i];

            text_end(entry->command, sizeof(entry->command));
            text_end(entry->pool, sizeof(entry->pool));
            text_end(entry->server, sizeof(entry->server));
            if (entry->hash != 0)
                bigkeys_add(into, entry);
        }
    }
    mem_free(copy);
}
