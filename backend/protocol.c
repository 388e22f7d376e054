/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/protocol.h"

#include "common/proto/memcache.h"

#define WORD_MAX 16u   /* longer than any verb of memcache */
#define LINE_MAX_ 2048u /* longer than a line of memcache's set */

static bool is_word_end(char c)
{
    return c == ' ' || c == '\r' || c == '\n' || c == '\t';
}

static size_t blanks_in(struct bytes data, size_t at)
{
    while (at < data.len && data.data[at] == ' ')
        at++;
    return at;
}

static uint32_t words_in(struct bytes line)
{
    uint32_t count = 0;

    for (size_t i = 0; i < line.len; i++)
        count += !is_word_end(line.data[i]) && (i == 0 || is_word_end(line.data[i - 1]));
    return count;
}

static enum session_protocol protocol_of_verb(enum mc_verb verb, struct bytes data)
{
    const char *end;

    if (verb != MC_set && verb != MC_append)
        return SESSION_MC_TEXT;
    end = memchr(data.data, '\n', data.len);
    if (end == NULL)
        return data.len < LINE_MAX_ ? SESSION_NEW : SESSION_MC_TEXT;
    return words_in(bytes_first(data, (size_t)(end - data.data))) == 3 ? SESSION_RESP : SESSION_MC_TEXT;
}

size_t protocol_empty_lines(struct bytes data)
{
    size_t at = 0;

    for (;;) {
        size_t end = blanks_in(data, at);

        end += end < data.len && data.data[end] == '\r';
        if (end == data.len || data.data[end] != '\n')
            return at;
        at = end + 1;
    }
}

enum session_protocol protocol_of(struct bytes data)
{
    size_t blanks = blanks_in(data, 0), len = 0;
    enum mc_verb verb;

    if (blanks == data.len || (blanks + 1 == data.len && data.data[blanks] == '\r'))
        return data.len < LINE_MAX_ ? SESSION_NEW : SESSION_RESP;
    if ((unsigned char)data.data[0] == MC_BIN_REQUEST)
        return SESSION_MC_BINARY;
    if (data.data[0] == '*')
        return SESSION_RESP;
    while (len < data.len && len < WORD_MAX && !is_word_end(data.data[len]))
        len++;
    if (len == data.len && len < WORD_MAX)
        return SESSION_NEW;
    verb = mc_verb_find(bytes_first(data, len));
    return verb == MC_none ? SESSION_RESP : protocol_of_verb(verb, data);
}
