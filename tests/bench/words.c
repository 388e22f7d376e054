/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/words.h"
#include <string.h>

/* The line at the start of `input` without its end; false: it is not complete. */
static bool take_line(struct bytes *input, struct bytes *line)
{
    const char *end = memchr(input->data, '\n', input->len);

    if (end == NULL)
        return false;
    *line = bytes_of(input->data, (size_t)(end - input->data));
    *input = bytes_skip(*input, line->len + 1);
    if (line->len > 0 && line->data[line->len - 1] == '\r')
        line->len--;
    return true;
}

/* "*3" and "$100": the number behind the first byte. */
static bool line_number(struct bytes line, char first, uint64_t max, uint64_t *out)
{
    return line.len > 0 && line.data[0] == first && bytes_to_u64(bytes_skip(line, 1), max, out);
}

enum words_result words_take_redis(struct bytes *input, struct words *out)
{
    struct bytes at = *input, line;
    uint64_t count, size;

    if (!take_line(&at, &line))
        return WORDS_MORE;
    if (!line_number(line, '*', WORDS_MAX, &count) || count == 0)
        return WORDS_BAD;
    for (out->count = 0; out->count < count; out->count++) {
        if (!take_line(&at, &line))
            return WORDS_MORE;
        if (!line_number(line, '$', WORDS_SIZE_MAX, &size))
            return WORDS_BAD;
        if (at.len < size + 2)
            return WORDS_MORE;
        out->word[out->count] = bytes_first(at, size);
        at = bytes_skip(at, size + 2);
    }
    *input = at;
    return WORDS_OK;
}

enum words_result words_take_line(struct bytes *input, struct words *out)
{
    struct bytes line;

    if (!take_line(input, &line))
        return WORDS_MORE;
    out->count = 0;
    while (line.len > 0 && out->count < WORDS_MAX) {
        const char *end = memchr(line.data, ' ', line.len);
        size_t len = end == NULL ? line.len : (size_t)(end - line.data);

        if (len > 0)
            out->word[out->count++] = bytes_first(line, len);
        line = bytes_skip(line, len + 1);
    }
    return out->count == 0 ? WORDS_BAD : WORDS_OK;
}
