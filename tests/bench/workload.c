/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/workload.h"
#include "common/base/mem.h"
#include "tests/bench/net.h"
#include <stdio.h>

/* At most this many bytes of prepared requests: more would only measure the generator's cache misses. */
#define FRAMES_BYTES_MAX (2u << 20)

bool workload_command_of(const char *name, enum workload_command *out)
{
    static const char *const names[] = {
        [WORKLOAD_GET] = "get",       [WORKLOAD_SET] = "set",       [WORKLOAD_MGET] = "mget",
        [WORKLOAD_MC_GET] = "mc-get", [WORKLOAD_MC_SET] = "mc-set", [WORKLOAD_MC_MGET] = "mc-mget",
    };

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum workload_command)i;
            return true;
        }
    }
    return false;
}

/* The numbers from 0 to count - 1 in an order that every run repeats. */
static uint32_t *shuffled(uint32_t count)
{
    uint32_t *numbers = must_alloc(sizeof(uint32_t) * count);
    uint64_t seed = 88172645463325252u;

    for (uint32_t i = 0; i < count; i++)
        numbers[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(&seed) % i), kept = numbers[i - 1];

        numbers[i - 1] = numbers[j];
        numbers[j] = kept;
    }
    return numbers;
}

#define TEXT_SET(workload, field, ...)                                                             \
    ((workload)->field##_len = (uint32_t)snprintf((workload)->field, sizeof((workload)->field),    \
                                                  __VA_ARGS__))

static void describe_reply(struct workload *w)
{
    w->item_count = w->keys_per_request;
    w->is_ordered = true;
    switch (w->command) {
    case WORKLOAD_MGET:
        TEXT_SET(w, prefix, "*%u\r\n", w->keys_per_request);
        FALLTHROUGH;
    case WORKLOAD_GET:
        TEXT_SET(w, head, "$%u\r\n", w->value_size);
        TEXT_SET(w, tail, "\r\n");
        break;
    case WORKLOAD_MC_MGET:
        w->is_ordered = false;
        FALLTHROUGH;
    case WORKLOAD_MC_GET:
        w->has_name = true;
        TEXT_SET(w, head, "VALUE ");
        TEXT_SET(w, between, " 0 %u\r\n", w->value_size);
        TEXT_SET(w, tail, "\r\n");
        TEXT_SET(w, suffix, "END\r\n");
        break;
    case WORKLOAD_SET:
        w->item_count = 0;
        TEXT_SET(w, prefix, "+OK\r\n");
        break;
    case WORKLOAD_MC_SET:
        w->item_count = 0;
        TEXT_SET(w, prefix, "STORED\r\n");
        break;
    }
    w->item_size = w->head_len + (w->has_name ? KEY_SIZE : 0) + w->between_len + w->value_size +
                   w->tail_len;
    w->reply_size = w->prefix_len + (size_t)w->item_count * w->item_size + w->suffix_len;
}

/* Appends the request for the keys `numbers` to `out`; the value is the key and then x's. */
static void compose_request(const struct workload *w, const uint32_t *numbers, struct queue *out)
{
    char text[64];

#define ADD(...) queue_append(out, text, (size_t)snprintf(text, sizeof(text), __VA_ARGS__))
    switch (w->command) {
    case WORKLOAD_GET:
    case WORKLOAD_MGET:
        ADD("*%u\r\n$%d\r\n%s", w->keys_per_request + 1, w->command == WORKLOAD_GET ? 3 : 4,
            w->command == WORKLOAD_GET ? "GET" : "MGET");
        for (uint32_t i = 0; i < w->keys_per_request; i++)
            ADD("\r\n$%d\r\nkey:%012u", KEY_SIZE, numbers[i]);
        break;
    case WORKLOAD_SET:
        ADD("*3\r\n$3\r\nSET\r\n$%d\r\nkey:%012u", KEY_SIZE, numbers[0]);
        ADD("\r\n$%u\r\nkey:%012u", w->value_size, numbers[0]);
        break;
    case WORKLOAD_MC_GET:
    case WORKLOAD_MC_MGET:
        ADD("get");
        for (uint32_t i = 0; i < w->keys_per_request; i++)
            ADD(" key:%012u", numbers[i]);
        break;
    case WORKLOAD_MC_SET:
        ADD("set key:%012u 0 0 %u\r\nkey:%012u", numbers[0], w->value_size, numbers[0]);
        break;
    }
    if (w->item_count == 0) {
        for (uint32_t i = KEY_SIZE; i < w->value_size; i++)
            queue_append(out, "x", 1);
    }
    ADD("\r\n");
#undef ADD
}

void workload_init(struct workload *w, uint32_t run_max)
{
    uint32_t *numbers = shuffled(w->key_count);
    struct queue frames = {0};
    const char *first, *second;

    if (w->value_size < KEY_SIZE || w->keys_per_request > w->key_count)
        die(0, "values need %d bytes at least, and keys must be as many as one request asks for",
            KEY_SIZE);
    describe_reply(w);
    compose_request(w, numbers, &frames);
    w->frame_size = queue_len(&frames);
    w->frame_count = (uint32_t)MIN((size_t)(w->key_count / w->keys_per_request),
                                   MAX((size_t)1, FRAMES_BYTES_MAX / w->frame_size));
    w->run_max = run_max;
    for (uint32_t i = 1; i < w->frame_count + run_max; i++)
        compose_request(w, numbers + (size_t)(i % w->frame_count) * w->keys_per_request, &frames);
    ASSERT(queue_len(&frames) == w->frame_size * (w->frame_count + run_max));
    w->frames = frames.data;
    first = memmem(w->frames, w->frame_size, "key:", 4);
    w->key_off = (size_t)(first - w->frames);
    if (w->keys_per_request > 1) {
        second = memmem(first + 1, w->frame_size - w->key_off - 1, "key:", 4);
        w->key_stride = (size_t)(second - first);
    }
    mem_free(numbers);
}

void workload_deinit(struct workload *w)
{
    mem_free(w->frames);
    w->frames = NULL;
}

/* Compares what `chunk` holds of `text`, which lies `at` bytes after the chunk's start (or before). */
static inline bool part_is(struct bytes chunk, ssize_t at, const char *text, size_t len)
{
    ssize_t from = MAX(at, (ssize_t)0);
    ssize_t until = MIN(at + (ssize_t)len, (ssize_t)chunk.len);

    return from >= until ||
           memcmp(chunk.data + from, text + (from - at), (size_t)(until - from)) == 0;
}

static bool check_item(const struct workload *w, struct bytes chunk, ssize_t at, const char *key)
{
    ssize_t name_at = at + w->head_len;
    ssize_t between_at = name_at + (w->has_name ? KEY_SIZE : 0);
    ssize_t value_at = between_at + w->between_len;

    if (!w->is_ordered) {
        /* Unordered: an item cut by the end of a chunk is checked for its frame only. */
        bool is_whole = at >= 0 && at + w->item_size <= (ssize_t)chunk.len;

        key = is_whole ? chunk.data + name_at : NULL;
    }
    return part_is(chunk, at, w->head, w->head_len) &&
           (!w->has_name || key == NULL || part_is(chunk, name_at, key, KEY_SIZE)) &&
           part_is(chunk, between_at, w->between, w->between_len) &&
           (key == NULL || part_is(chunk, value_at, key, KEY_SIZE)) &&
           part_is(chunk, value_at + w->value_size, w->tail, w->tail_len);
}

bool workload_check(const struct workload *w, uint32_t frame, size_t off, struct bytes chunk)
{
    const char *keys = w->frames + (size_t)frame * w->frame_size + w->key_off;
    size_t end = off + chunk.len;
    ssize_t origin = -(ssize_t)off; /* of the reply, counted from the chunk's start */

    ASSERT(end <= w->reply_size);
    if (off < w->prefix_len && !part_is(chunk, origin, w->prefix, w->prefix_len))
        return false;
    if (w->item_count > 0) {
        uint32_t i = off < w->prefix_len ? 0 : (uint32_t)((off - w->prefix_len) / w->item_size);

        for (; i < w->item_count; i++) {
            size_t start = w->prefix_len + (size_t)i * w->item_size;

            if (start >= end)
                break;
            if (!check_item(w, chunk, origin + (ssize_t)start, keys + i * w->key_stride))
                return false;
        }
    }
    return part_is(chunk, origin + (ssize_t)(w->reply_size - w->suffix_len), w->suffix,
                   w->suffix_len);
}
