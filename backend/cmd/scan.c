/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/scan.h"
#include "backend/cmd/reply.h"
#include "common/base/glob.h"

#define COUNT_DEFAULT 10u
/* Steps that find nothing, for each element wanted: a sparse table must not hold up the others. */
#define STEPS_FACTOR  10u

bool scan_cursor(struct cmd *c, uint32_t i, struct scan *scan)
{
    struct bytes text = c->argv[i];
    bool is_negative = text.len > 0 && text.data[0] == '-';
    bool has_sign = is_negative || (text.len > 0 && text.data[0] == '+');
    uint64_t value = 0;

    *scan = (struct scan){.c = c, .count = COUNT_DEFAULT};
    text = bytes_skip(text, has_sign);
    if (has_sign && text.len == 0)
        goto bad;
    for (size_t at = 0; at < text.len; at++) {
        unsigned digit = (unsigned)(unsigned char)text.data[at] - '0';

        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            goto bad;
        value = value * 10 + digit;
    }
    scan->cursor = is_negative ? ~value + 1 : value;
    return true;
bad:
    reply_error(c, "ERR invalid cursor");
    return false;
}

bool scan_options(struct scan *scan, uint32_t i, bool with_type)
{
    struct cmd *c = scan->c;

    for (; i + 1 < c->argc; i += 2) {
        int64_t count;

        if (arg_is(c, i, "count")) {
            if (!arg_i64(c, i + 1, &count))
                return false;
            if (count < 1)
                break;
            scan->count = (uint64_t)count;
        } else if (arg_is(c, i, "match")) {
            scan->match = c->argv[i + 1];
            scan->has_match = !bytes_equal(scan->match, BYTES("*"));
        } else if (with_type && arg_is(c, i, "type")) {
            scan->type = c->argv[i + 1];
        } else {
            break;
        }
    }
    if (i == c->argc)
        return true;
    reply_error(c, ERROR_SYNTAX);
    return false;
}

void scan_reply_empty(struct cmd *c)
{
    reply_array(c, 2);
    reply_bulk(c, BYTES("0"));
    reply_array(c, 0);
}

/* One pass; both make the same steps. */
static uint64_t scan_pass(struct scan *scan, scan_step_fn step, const void *arg)
{
    uint64_t steps = scan->count > UINT64_MAX / STEPS_FACTOR ? UINT64_MAX : scan->count * STEPS_FACTOR;
    uint64_t cursor = scan->cursor;

    scan->seen = scan->matched = 0;
    do
        cursor = step(scan, arg, cursor);
    while (cursor != 0 && --steps > 0 && scan->seen < scan->count);
    return cursor;
}

void scan_reply(struct scan *scan, uint32_t width, scan_step_fn step, const void *arg)
{
    char digits[20];
    uint64_t cursor;

    scan->is_telling = false;
    cursor = scan_pass(scan, step, arg);
    reply_array(scan->c, 2);
    reply_bulk(scan->c, bytes_of(digits, u64_to_digits(cursor, digits)));
    reply_array(scan->c, scan->matched * width);
    scan->is_telling = true;
    MAYBE(scan_pass(scan, step, arg));
}

bool scan_element(struct scan *scan, struct bytes name)
{
    scan->seen++;
    if (scan->has_match && !glob_matches(scan->match, name, false))
        return false;
    scan->matched++;
    if (scan->is_telling)
        reply_bulk(scan->c, name);
    return scan->is_telling;
}
