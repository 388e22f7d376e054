/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LCS: the longest common subsequence of two strings, by the table of all prefixes' answers. Time and memory are the
 * product of the lengths; proto-max-bulk-len bounds both.
 */
#include "backend/cmd/settings.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/string_edit.h"
#include "common/base/mem.h"

struct lcs {
    struct bytes a, b;
    uint32_t *table; /* owns; [i * (b.len + 1) + j]: the answer for the first i bytes of a and j of b */
    bool wants_len, wants_ranges, with_match_len;
    int64_t match_len_min;
};

static uint32_t *lcs_at(const struct lcs *lcs, size_t i, size_t j)
{
    return &lcs->table[i * (lcs->b.len + 1) + j];
}

static bool lcs_options_parse(struct cmd *c, struct lcs *lcs)
{
    for (uint32_t i = 3; i < c->argc; i++) {
        if (arg_is(c, i, "idx")) {
            lcs->wants_ranges = true;
        } else if (arg_is(c, i, "len")) {
            lcs->wants_len = true;
        } else if (arg_is(c, i, "withmatchlen")) {
            lcs->with_match_len = true;
        } else if (arg_is(c, i, "minmatchlen") && i + 1 < c->argc) {
            if (!arg_i64(c, ++i, &lcs->match_len_min))
                return false;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    if (lcs->wants_len && lcs->wants_ranges) {
        reply_error(c, "ERR If you want both the length and indexes, please just use IDX.");
        return false;
    }
    return true;
}

static bool lcs_keys_read(struct cmd *c, struct lcs *lcs)
{
    struct store_key keys[2];

    for (uint32_t i = 0; i < 2; i++)
        if (!key_read(c, c->argv[1 + i], STORE_NONE, &keys[i]))
            return false;
    for (uint32_t i = 0; i < 2; i++)
        if (keys[i].entry != NULL && entry_type(keys[i].entry) != STORE_STRING) {
            reply_error(c, "ERR The specified keys must contain string values");
            return false;
        }
    lcs->a = key_string(&keys[0]);
    lcs->b = key_string(&keys[1]);
    return true;
}

static bool lcs_table_make(struct cmd *c, struct lcs *lcs)
{
    uint64_t size = (uint64_t)(lcs->a.len + 1) * (lcs->b.len + 1) * sizeof(uint32_t);

    if (size > c->engine->settings->bulk_max) {
        reply_error(c, "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
        return false;
    }
    lcs->table = mem_alloc((size_t)size);
    if (lcs->table == NULL) {
        reply_error(c, "ERR Insufficient memory, failed allocating transient memory for LCS");
        return false;
    }
    memset(lcs->table, 0, (lcs->b.len + 1) * sizeof(uint32_t));
    for (size_t i = 1; i <= lcs->a.len; i++) {
        const uint32_t *above = lcs_at(lcs, i - 1, 0);
        uint32_t *row = lcs_at(lcs, i, 0);

        row[0] = 0;
        for (size_t j = 1; j <= lcs->b.len; j++)
            row[j] = lcs->a.data[i - 1] == lcs->b.data[j - 1] ? above[j - 1] + 1 : MAX(above[j], row[j - 1]);
    }
    return true;
}

/* One step back from the prefixes i and j. True: their last bytes are a part of the answer. */
static bool lcs_step(const struct lcs *lcs, size_t *i, size_t *j)
{
    if (lcs->a.data[*i - 1] == lcs->b.data[*j - 1]) {
        --*i;
        --*j;
        return true;
    }
    if (*lcs_at(lcs, *i - 1, *j) > *lcs_at(lcs, *i, *j - 1))
        --*i;
    else
        --*j;
    return false;
}

static void lcs_reply_text(struct cmd *c, const struct lcs *lcs)
{
    size_t i = lcs->a.len, j = lcs->b.len, len = *lcs_at(lcs, i, j), left = len;
    char *text = mem_alloc(MAX(len, (size_t)1));

    if (text == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    while (i > 0 && j > 0)
        if (lcs_step(lcs, &i, &j))
            text[--left] = lcs->a.data[i];
    ASSERT(left == 0);
    reply_bulk(c, bytes_of(text, len));
    mem_free(text);
}

/* A run of equal bytes: so many from a_start and b_start on. */
static bool lcs_reply_run(struct cmd *c, const struct lcs *lcs, size_t a_start, size_t b_start, size_t len)
{
    if (lcs->match_len_min > 0 && len < (uint64_t)lcs->match_len_min)
        return false;
    reply_array(c, lcs->with_match_len ? 3 : 2);
    reply_array(c, 2);
    reply_integer(c, (int64_t)a_start);
    reply_integer(c, (int64_t)(a_start + len - 1));
    reply_array(c, 2);
    reply_integer(c, (int64_t)b_start);
    reply_integer(c, (int64_t)(b_start + len - 1));
    if (lcs->with_match_len)
        reply_integer(c, (int64_t)len);
    return true;
}

/* Runs from the last to the first. */
static void lcs_reply_ranges(struct cmd *c, const struct lcs *lcs)
{
    size_t i = lcs->a.len, j = lcs->b.len, run = 0;
    uint64_t count = 0;

    reply_map(c, 2);
    reply_bulk_string(c, "matches");
    reply_count_later(c);
    while (i > 0 && j > 0) {
        size_t a_start = i, b_start = j;

        if (lcs_step(lcs, &i, &j)) {
            run++;
            continue;
        }
        if (run > 0)
            count += lcs_reply_run(c, lcs, a_start, b_start, run);
        run = 0;
    }
    if (run > 0)
        count += lcs_reply_run(c, lcs, i, j, run);
    reply_count_array(c, count);
    reply_bulk_string(c, "len");
    reply_integer(c, *lcs_at(lcs, lcs->a.len, lcs->b.len));
}

void cmd_lcs(struct cmd *c)
{
    struct lcs lcs = {0};

    if (!lcs_keys_read(c, &lcs) || !lcs_options_parse(c, &lcs) || !lcs_table_make(c, &lcs))
        return;
    if (lcs.wants_ranges)
        lcs_reply_ranges(c, &lcs);
    else if (lcs.wants_len)
        reply_integer(c, *lcs_at(&lcs, lcs.a.len, lcs.b.len));
    else
        lcs_reply_text(c, &lcs);
    mem_free(lcs.table);
}
