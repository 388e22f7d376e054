/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SORT: the elements of a list, set or sorted set, in the order of themselves or of values elsewhere.
 *
 *     collect elements ──> weights (BY) ──> sort ──> LIMIT ──> each element, or what GET names ──> reply, or STORE
 *
 * Elements are copied, values of other keys are views: nothing changes before all is read. Keys that patterns make
 * are not known beforehand; where one is cold, the command waits for it and begins again.
 */
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/types/hash.h"
#include "backend/types/list.h"
#include "backend/types/set.h"
#include "backend/types/zset.h"
#include "common/base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct element {
    size_t off, len;     /* in sort.text */
    uint64_t place;      /* before sorting: what is equal stays in order */
    double score;
    struct bytes weight; /* ALPHA; data NULL: none, which is before all others */
};

struct sort {
    struct cmd *c;
    bool is_descending, is_alpha, is_unsorted;
    int64_t skip, limit; /* limit negative: all */
    struct bytes by, store;
    bool has_by, has_store;
    uint32_t get_count;  /* how often GET was said */
    struct buffer text;  /* the elements' bytes */
    struct buffer name;  /* a key that a pattern makes */
    struct element *elements; /* owns */
    uint64_t count;
    bool has_failed; /* replied, or parked */
};

static void sort_deinit(struct sort *sort)
{
    buffer_deinit(&sort->text);
    buffer_deinit(&sort->name);
    mem_free(sort->elements);
}

static bool sort_options_parse(struct sort *sort, bool is_read_only)
{
    struct cmd *c = sort->c;

    for (uint32_t i = 2; i < c->argc; i++) {
        uint32_t left = c->argc - i - 1;

        if (arg_is(c, i, "asc")) {
            sort->is_descending = false;
        } else if (arg_is(c, i, "desc")) {
            sort->is_descending = true;
        } else if (arg_is(c, i, "alpha")) {
            sort->is_alpha = true;
        } else if (arg_is(c, i, "limit") && left >= 2) {
            if (!arg_i64(c, i + 1, &sort->skip) || !arg_i64(c, i + 2, &sort->limit))
                return false;
            i += 2;
        } else if (!is_read_only && arg_is(c, i, "store") && left >= 1) {
            sort->store = c->argv[++i];
            sort->has_store = true;
        } else if (arg_is(c, i, "by") && left >= 1) {
            sort->by = c->argv[++i];
            sort->has_by = true;
            if (memchr(sort->by.data, '*', sort->by.len) == NULL)
                sort->is_unsorted = true;
        } else if (arg_is(c, i, "get") && left >= 1) {
            i++;
            sort->get_count++;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* ---- elements ---- */

static void sort_add(struct sort *sort, struct bytes element)
{
    sort->elements[sort->count] =
        (struct element){.off = sort->text.len, .len = element.len, .place = sort->count};
    sort->count++;
    buffer_append(&sort->text, element.data, element.len);
}

static struct bytes element_bytes(const struct sort *sort, const struct element *element)
{
    return bytes_of(sort->text.data + element->off, element->len);
}

/* Lists and sorted sets that are not sorted come in their own order, or backwards. */
static void sort_add_list(struct sort *sort, const struct object *object)
{
    const struct deque *items = list_items(object);
    bool is_backwards = sort->is_unsorted && sort->is_descending;
    struct deque_cursor cursor;

    if (items->count == 0)
        return;
    cursor = deque_seek(items, is_backwards ? items->count - 1 : 0);
    for (uint64_t i = 0; i < items->count; i++)
        sort_add(sort, deque_walk(&cursor, is_backwards ? DEQUE_HEAD : DEQUE_TAIL));
}

static void sort_add_set(struct sort *sort, const struct object *object)
{
    struct set_walk walk;
    struct bytes member;

    set_walk_init(&walk, object);
    while (set_walk_next(&walk, &member))
        sort_add(sort, member);
}

static void sort_add_zset(struct sort *sort, const struct object *object)
{
    bool is_down = sort->is_unsorted && sort->is_descending;
    uint64_t count = zset_count(object);
    struct zset_walk walk;
    struct bytes member;
    double score;

    zset_walk_init(&walk, object, is_down ? count - 1 : 0, count, is_down);
    while (zset_walk_next(&walk, &member, &score))
        sort_add(sort, member);
}

static bool sort_collect(struct sort *sort)
{
    struct cmd *c = sort->c;
    struct store_key key;
    enum store_type type;
    uint64_t count = 0;

    if (!key_read(c, c->argv[1], STORE_NONE, &key))
        return false;
    type = key.entry == NULL ? STORE_NONE : entry_type(key.entry);
    if (key.entry != NULL && type != STORE_LIST && type != STORE_SET && type != STORE_ZSET) {
        reply_error(c, ERROR_WRONGTYPE);
        return false;
    }
    /* What is stored must not depend on how a set happens to lie in memory. */
    if (sort->is_unsorted && type == STORE_SET && sort->has_store) {
        sort->is_unsorted = sort->has_by = false;
        sort->is_alpha = true;
    }
    if (key.entry != NULL)
        count = store_type_ops(c->store, type)->count(entry_object(key.entry));
    sort->elements = mem_alloc(MAX(count, (uint64_t)1) * sizeof(struct element));
    if (sort->elements == NULL) {
        cmd_out_of_memory(c);
        return false;
    }
    if (type == STORE_LIST)
        sort_add_list(sort, entry_object(key.entry));
    else if (type == STORE_SET)
        sort_add_set(sort, entry_object(key.entry));
    else if (type == STORE_ZSET)
        sort_add_zset(sort, entry_object(key.entry));
    ASSERT(sort->count == count);
    if (sort->text.failed) {
        cmd_out_of_memory(c);
        return false;
    }
    return true;
}

/* ---- values elsewhere ---- */

/* Where "->field" begins behind the star; the pattern's length: nowhere. */
static size_t pattern_arrow(struct bytes pattern, size_t star)
{
    for (size_t i = star + 1; i + 2 < pattern.len; i++)
        if (pattern.data[i] == '-' && pattern.data[i + 1] == '>')
            return i;
    return pattern.len;
}

/* What "weight_*" or "object_*->field" names for this element. False: nothing; or sort->has_failed. */
static bool sort_lookup(struct sort *sort, struct bytes pattern, struct bytes element, struct bytes *out)
{
    const char *at = pattern.len > 0 ? memchr(pattern.data, '*', pattern.len) : NULL;
    size_t star, arrow;
    struct store_key key;

    if (bytes_equal(pattern, BYTES("#"))) {
        *out = element;
        return true;
    }
    if (at == NULL)
        return false;
    star = (size_t)(at - pattern.data);
    arrow = pattern_arrow(pattern, star);
    buffer_clear(&sort->name);
    buffer_append(&sort->name, pattern.data, star);
    buffer_append(&sort->name, element.data, element.len);
    buffer_append(&sort->name, pattern.data + star + 1, arrow - star - 1);
    if (sort->name.failed) {
        cmd_out_of_memory(sort->c);
        sort->has_failed = true;
        return false;
    }
    if (sort->name.len > STORE_KEY_MAX)
        return false; /* there can be no such key */
    if (!key_read(sort->c, buffer_bytes(&sort->name), STORE_NONE, &key)) {
        sort->has_failed = true;
        return false;
    }
    if (key.entry == NULL)
        return false;
    if (arrow < pattern.len)
        return entry_type(key.entry) == STORE_HASH &&
               hash_get(entry_object(key.entry), bytes_skip(pattern, arrow + 2), out);
    if (entry_type(key.entry) != STORE_STRING)
        return false;
    *out = store_string(key.entry);
    return true;
}

/* As strtod() reads it: blanks in front are allowed, and nothing is 0. */
static bool sort_number(struct sort *sort, struct bytes text, double *out)
{
    char *end;

    buffer_clear(&sort->name);
    buffer_append(&sort->name, text.data, text.len);
    buffer_append(&sort->name, "", 1);
    if (sort->name.failed)
        return false;
    errno = 0;
    *out = strtod(sort->name.data, &end);
    return *end == '\0' && errno != ERANGE && !isnan(*out);
}

static bool sort_weigh(struct sort *sort)
{
    bool are_numbers = true;

    for (uint64_t i = 0; i < sort->count; i++) {
        struct element *element = &sort->elements[i];
        struct bytes weight = element_bytes(sort, element);

        if (sort->has_by && !sort_lookup(sort, sort->by, weight, &weight)) {
            if (sort->has_failed)
                return false;
            continue;
        }
        if (sort->is_alpha)
            element->weight = bytes_of(weight.len > 0 ? weight.data : "", weight.len);
        else if (!sort_number(sort, weight, &element->score))
            are_numbers = false;
    }
    if (!are_numbers)
        reply_error(sort->c, "ERR One or more scores can't be converted into double");
    return are_numbers;
}

static int bytes_compare(struct bytes a, struct bytes b)
{
    size_t len = MIN(a.len, b.len);
    int order = len > 0 ? memcmp(a.data, b.data, len) : 0;

    if (order != 0 || a.len == b.len)
        return order;
    return a.len < b.len ? -1 : 1;
}

static struct bytes until_nul(struct bytes text)
{
    const char *nul = text.len > 0 ? memchr(text.data, '\0', text.len) : NULL;

    return bytes_first(text, nul != NULL ? (size_t)(nul - text.data) : text.len);
}

/* Redis compares C strings (strcoll() in the C locale), unless it stores the result. */
static int weight_compare(const struct element *a, const struct element *b, bool as_strings)
{
    if (a->weight.data == NULL || b->weight.data == NULL)
        return (a->weight.data != NULL) - (b->weight.data != NULL);
    if (as_strings)
        return bytes_compare(until_nul(a->weight), until_nul(b->weight));
    return bytes_compare(a->weight, b->weight);
}

static int element_compare(const void *left, const void *right, void *arg)
{
    const struct element *a = left, *b = right;
    const struct sort *sort = arg;
    int order;

    if (sort->is_alpha)
        order = weight_compare(a, b, !sort->has_store);
    else if (a->score != b->score)
        order = a->score < b->score ? -1 : 1;
    else
        order = bytes_compare(element_bytes(sort, a), element_bytes(sort, b));
    if (order == 0)
        return a->place < b->place ? -1 : 1;
    return sort->is_descending ? -order : order;
}

/* ---- results ---- */

/* The part that LIMIT leaves: *first on. */
static uint64_t sort_range(const struct sort *sort, uint64_t *first)
{
    uint64_t left;

    *first = sort->skip < 0 ? 0 : MIN((uint64_t)sort->skip, sort->count);
    left = sort->count - *first;
    return sort->limit < 0 ? left : MIN((uint64_t)sort->limit, left);
}

typedef bool (*sort_result_fn)(struct sort *sort, void *arg, const struct bytes *value);

/* Each result in turn; NULL: GET found nothing. */
static bool sort_each(struct sort *sort, sort_result_fn each, void *arg)
{
    struct cmd *c = sort->c;
    uint64_t first, count = sort_range(sort, &first);

    for (uint64_t e = first; e < first + count; e++) {
        struct bytes element = element_bytes(sort, &sort->elements[e]), value;

        if (sort->get_count == 0 && !each(sort, arg, &element))
            return false;
        for (uint32_t i = 2; sort->get_count > 0 && i < c->argc; i++) {
            bool is_found;

            if (arg_is(c, i, "limit")) {
                i += 2;
            } else if (arg_is(c, i, "by") || arg_is(c, i, "store")) {
                i++;
            } else if (arg_is(c, i, "get")) {
                is_found = sort_lookup(sort, c->argv[++i], element, &value);
                if (sort->has_failed || !each(sort, arg, is_found ? &value : NULL))
                    return false;
            }
        }
    }
    return true;
}

static bool reply_result(struct sort *sort, void *arg, const struct bytes *value)
{
    MAYBE(arg);
    if (value == NULL)
        reply_null(sort->c);
    else
        reply_bulk(sort->c, *value);
    return true;
}

struct sort_output {
    struct object *list; /* owns */
    struct buffer unused; /* what the log would get: the list goes there as a whole */
    uint64_t count;
};

static bool store_result(struct sort *sort, void *arg, const struct bytes *value)
{
    struct sort_output *output = arg;
    struct bytes item = value != NULL ? *value : BYTES_EMPTY;

    buffer_clear(&output->unused);
    if (list_push(output->list, DEQUE_TAIL, &item, 1, &output->unused) != 0) {
        cmd_out_of_memory(sort->c);
        return false;
    }
    output->count++;
    return true;
}

/* The target becomes the list, or goes away where there is nothing. */
static bool sort_store(struct sort *sort, struct sort_output *output)
{
    struct cmd *c = sort->c;
    struct store_attributes attributes = {0};
    struct store_key target;

    if (!key_write(c, sort->store, STORE_NONE, &target))
        return false;
    if (output->count > 0) {
        if (!cmd_stored(c, store_put_object(c->store, &target, output->list, &attributes)))
            return false;
        output->list = NULL;
        notify(c, NOTIFY_LIST, "sortstore", target.name);
    } else if (target.entry != NULL) {
        if (!cmd_stored(c, store_delete(c->store, &target)))
            return false;
        notify(c, NOTIFY_GENERIC, "del", target.name);
    }
    return true;
}

static void sort_tell(struct sort *sort)
{
    struct cmd *c = sort->c;
    const struct object_ops *ops = store_type_ops(c->store, STORE_LIST);
    struct sort_output output = {0};
    uint64_t first, count = sort_range(sort, &first);

    if (!sort->has_store) {
        reply_array(c, count * MAX(sort->get_count, 1u));
        MAYBE(sort_each(sort, reply_result, NULL));
        return;
    }
    output.list = ops->create();
    if (output.list == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    if (sort_each(sort, store_result, &output) && sort_store(sort, &output))
        reply_integer(c, (int64_t)output.count);
    if (output.list != NULL)
        ops->destroy(output.list);
    buffer_deinit(&output.unused);
}

static void sort_run(struct cmd *c, bool is_read_only)
{
    struct sort sort = {.c = c, .limit = -1};

    if (sort_options_parse(&sort, is_read_only) && sort_collect(&sort)) {
        bool is_fine = true;

        if (!sort.is_unsorted) {
            is_fine = sort_weigh(&sort);
            if (is_fine)
                qsort_r(sort.elements, sort.count, sizeof(struct element), element_compare, &sort);
        }
        if (is_fine)
            sort_tell(&sort);
    }
    sort_deinit(&sort);
}

void cmd_sort(struct cmd *c)
{
    sort_run(c, false);
}

void cmd_sort_ro(struct cmd *c)
{
    sort_run(c, true);
}
