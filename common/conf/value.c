/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys by table, and the kinds of values: numbers, booleans, names, sizes, times.
 *
 * twemproxy's keys take what twemproxy takes and say what it says, then what would be right; times
 * and sizes also take a unit.
 */
#include "config.h"

#include "common/conf/reader.h"

#include <limits.h>
#include <stdio.h>

#define KEYS_MAX      64
#define NAME_SIZE_MAX 64
#define NEAR_MAX      32 /* longer words are not compared for "did you mean" */

/* Letters that must change, come or go to get from one word to the other. */
static uint32_t edit_distance(struct bytes a, struct bytes b)
{
    uint32_t row[NEAR_MAX + 1];

    if (a.len > NEAR_MAX || b.len > NEAR_MAX)
        return UINT32_MAX;
    for (uint32_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (uint32_t i = 1; i <= a.len; i++) {
        uint32_t diagonal = row[0];

        row[0] = i;
        for (uint32_t j = 1; j <= b.len; j++) {
            uint32_t changed = diagonal + (a.data[i - 1] != b.data[j - 1]);
            uint32_t longer = MIN(row[j], row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = MIN(changed, longer);
        }
    }
    return row[b.len];
}

static int fail_unknown(struct conf_reader *reader, const struct conf_node *node,
                        const char *prefix, const struct conf_key *keys, uint32_t count)
{
    uint32_t best = UINT32_MAX, best_at = 0;
    char list[512];
    size_t used = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t distance = edit_distance(node->text, bytes_of_string(keys[i].name));
        int len =
            snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", keys[i].name);

        used = MIN(used + (size_t)len, sizeof(list) - 1);
        if (distance < best)
            best = distance, best_at = i;
    }
    if (best <= 2 && best < node->text.len)
        return conf_fail(reader, node->at,
                         "conf: directive \"%s%.*s\" is unknown; did you mean \"%s\"?", prefix,
                         CONF_SHOW(node->text), keys[best_at].name);
    return conf_fail(reader, node->at, "conf: directive \"%s%.*s\" is unknown; known are %s",
                     prefix, CONF_SHOW(node->text), list);
}

int conf_read_mapping(struct conf_reader *reader, const struct conf_node *mapping,
                      const char *prefix, const struct conf_key *keys, uint32_t count, void *target,
                      struct conf_position *seen)
{
    ASSERT(count <= KEYS_MAX);
    for (const struct conf_node *node = mapping->first; node != NULL; node = node->next) {
        char name[NAME_SIZE_MAX];
        struct conf_item item = {.name = name, .name_node = node, .value = node->value};
        uint32_t index = 0;
        int err;

        while (index < count && !bytes_equal(node->text, bytes_of_string(keys[index].name)))
            index++;
        if (index == count)
            return fail_unknown(reader, node, prefix, keys, count);
        snprintf(name, sizeof(name), "%s%s", prefix, keys[index].name);
        if (seen[index].line != 0)
            return conf_fail(
                reader, node->at,
                "conf: directive \"%s\" is a duplicate; it was given in line %u already", name,
                seen[index].line);
        seen[index] = node->at;
        item.key = &keys[index];
        err = keys[index].set(reader, &item, target);
        if (err != 0)
            return err;
    }
    return 0;
}

int conf_scalar(struct conf_reader *reader, const struct conf_item *item, struct bytes *out)
{
    if (item->value->kind != CONF_NODE_SCALAR)
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" has an invalid value; it takes one value, not a %s", item->name,
            item->value->kind == CONF_NODE_LIST ? "list" : "mapping");
    if (item->value->text.len == 0)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; it is empty: write a value "
                         "behind the colon or leave the line out",
                         item->name);
    *out = item->value->text;
    return 0;
}

bool conf_number(struct bytes text, uint32_t *out)
{
    uint64_t value = 0;

    if (text.len == 0)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
        if (value > INT_MAX)
            return false;
    }
    *out = (uint32_t)value;
    return true;
}

static int fail_range(struct conf_reader *reader, const struct conf_item *item, const char *what)
{
    return conf_fail(reader, item->value->at,
                     "conf: directive \"%s\" has an invalid value; it takes %s%llu to %llu",
                     item->name, what, (unsigned long long)item->key->min,
                     (unsigned long long)item->key->max);
}

int conf_set_u32(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    uint32_t value;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!conf_number(text, &value))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" is not a number; write digits only, %llu to %llu",
                         item->name, (unsigned long long)item->key->min,
                         (unsigned long long)item->key->max);
    if (value < item->key->min || value > item->key->max)
        return fail_range(reader, item, "");
    *(uint32_t *)((char *)target + item->key->offset) = value;
    return 0;
}

int conf_set_u64(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    uint64_t value;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!bytes_to_u64(text, UINT64_MAX, &value))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" is not a number; write digits only", item->name);
    if (value < item->key->min || value > item->key->max)
        return fail_range(reader, item, "");
    *(uint64_t *)((char *)target + item->key->offset) = value;
    return 0;
}

int conf_set_bool(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    bool *field = (bool *)((char *)target + item->key->offset);
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!bytes_equal(text, BYTES("true")) && !bytes_equal(text, BYTES("false")))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" is not \"true\" or \"false\"; \"%.*s\" is neither",
                         item->name, CONF_SHOW(text));
    *field = text.len == 4;
    return 0;
}

int conf_set_string(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (text.len > item->key->max)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; it has more than %llu bytes",
                         item->name, (unsigned long long)item->key->max);
    *(const char **)((char *)target + item->key->offset) = conf_copy(reader->arena, text);
    return 0;
}

int conf_set_enum(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    const char *const *names = item->key->names;
    struct bytes text;
    char list[256];
    size_t used = 0;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    for (uint32_t i = 0; names[i] != NULL; i++) {
        int len = snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", names[i]);

        if (bytes_equal(text, bytes_of_string(names[i]))) {
            *(unsigned *)((char *)target + item->key->offset) = i;
            return 0;
        }
        used = MIN(used + (size_t)len, sizeof(list) - 1);
    }
    return conf_fail(reader, item->value->at,
                     "conf: directive \"%s\" has an invalid value; \"%.*s\" is none of %s",
                     item->name, CONF_SHOW(text), list);
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits and a unit of the table; false for anything else, overflow too. */
static bool parse_with_unit(struct bytes text, const struct unit *units, uint64_t *out)
{
    size_t digits = 0;
    uint64_t number = 0;
    struct bytes unit;

    while (digits < text.len && text.data[digits] >= '0' && text.data[digits] <= '9') {
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(text.data[digits] - '0'), &number))
            return false;
        digits++;
    }
    unit = bytes_skip(text, digits);
    if (digits == 0)
        return false;
    for (; units->name != NULL; units++) {
        if (bytes_equal_nocase(unit, bytes_of_string(units->name)))
            return !__builtin_mul_overflow(number, units->factor, out);
    }
    return false;
}

static int read_size(struct conf_reader *reader, const struct conf_item *item, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1},           {"b", 1},         {"k", 1u << 10},   {"kb", 1u << 10},
        {"kib", 1u << 10}, {"m", 1u << 20},  {"mb", 1u << 20},  {"mib", 1u << 20},
        {"g", 1u << 30},   {"gb", 1u << 30}, {"gib", 1u << 30}, {NULL, 0},
    };
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!parse_with_unit(text, units, out))
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" is not a number; write bytes (65536) or a size with "
            "its unit (64k, 16m, 1g)",
            item->name);
    if (*out < item->key->min || *out > item->key->max)
        return fail_range(reader, item, "bytes from ");
    return 0;
}

int conf_set_size32(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    uint64_t size;
    int err = read_size(reader, item, &size);

    ASSERT(item->key->max <= UINT32_MAX);
    if (err == 0)
        *(uint32_t *)((char *)target + item->key->offset) = (uint32_t)size;
    return err;
}

int conf_set_size64(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    return read_size(reader, item, (uint64_t *)((char *)target + item->key->offset));
}

static int set_time(struct conf_reader *reader, const struct conf_item *item, void *target,
                    bool may_be_off)
{
    static const struct unit units[] = {
        {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {NULL, 0},
    };
    int64_t *field = (int64_t *)((char *)target + item->key->offset);
    struct bytes text;
    uint64_t ms;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (may_be_off && (bytes_equal(text, BYTES("-1")) || bytes_equal(text, BYTES("off")))) {
        *field = -1;
        return 0;
    }
    if (!parse_with_unit(text, units, &ms))
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" is not a number; write milliseconds (400) or a time "
            "with its unit (400ms, 2s, 5m)%s",
            item->name, may_be_off ? ", or off" : "");
    if (ms < item->key->min || ms > item->key->max)
        return fail_range(reader, item, "milliseconds from ");
    *field = (int64_t)ms;
    return 0;
}

int conf_set_time(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    return set_time(reader, item, target, false);
}

int conf_set_time_or_off(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    return set_time(reader, item, target, true);
}

int conf_set_unsupported(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    (void)target;
    return conf_fail(reader, item->name_node->at, "conf: directive \"%s\" is not supported yet; %s",
                     item->name, item->key->names[0]);
}

static int word_add(struct conf_reader *reader, const struct conf_item *item, uint32_t count_max,
                    struct bytes word, const char **items, uint32_t *count)
{
    if (word.len == 0)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; an item is empty",
                         item->name);
    if (*count == count_max)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; it has more than %u items",
                         item->name, count_max);
    items[(*count)++] = conf_copy(reader->arena, word);
    return 0;
}

int conf_words(struct conf_reader *reader, const struct conf_item *item, uint32_t count_max,
               struct conf_strings *out)
{
    const char **items = conf_alloc(reader->arena, count_max * sizeof(*items));
    uint32_t count = 0;
    struct bytes text = item->value->text;
    int err = 0;

    if (item->value->kind == CONF_NODE_MAPPING)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; it takes a list, [a, b]",
                         item->name);
    if (item->value->kind == CONF_NODE_LIST) {
        for (const struct conf_node *node = item->value->first; node != NULL; node = node->next) {
            if (node->kind != CONF_NODE_SCALAR)
                return conf_fail(reader, node->at,
                                 "conf: directive \"%s\" has an invalid value; its items are words",
                                 item->name);
            err = word_add(reader, item, count_max, node->text, items, &count);
            if (err != 0)
                return err;
        }
    } else {
        while (err == 0 && text.len > 0) {
            size_t len = 0;

            while (len < text.len && text.data[len] != ' ' && text.data[len] != ',')
                len++;
            if (len > 0)
                err = word_add(reader, item, count_max, bytes_first(text, len), items, &count);
            text = bytes_skip(text, len > 0 ? len : 1);
        }
    }
    *out = (struct conf_strings){.items = items, .count = count};
    return err;
}
