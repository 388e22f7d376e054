/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache over several servers: stats added up, errors in either protocol.
 */
#include "proxy/proxy_private.h"

#define STATS_NAMES_MAX 4096

/* memcached's "Temporary failure": the command may or may not have run. */
#define BINARY_TEMPORARY_FAILURE 0x86

bool memcache_is_error_line(struct bytes reply)
{
    return (reply.len >= 5 && memcmp(reply.data, "ERROR", 5) == 0) ||
           (reply.len >= 13 && (memcmp(reply.data, "SERVER_ERROR ", 13) == 0 ||
                                memcmp(reply.data, "CLIENT_ERROR ", 13) == 0));
}

struct bytes request_error_bytes(const struct request *request, enum error_id error, struct error_room *room)
{
    struct bytes text = error_info(error)->memcache;
    struct mc_bin_header header = {.magic = MC_BIN_RESPONSE,
                                   .opcode = request->bin_opcode,
                                   .opaque = request->bin_opaque,
                                   .status = error == ERROR_out_of_memory ? MC_BIN_NO_MEMORY
                                                                          : BINARY_TEMPORARY_FAILURE};

    if (request->dialect != DIALECT_MC_BINARY)
        return error_bytes(error, request->dialect);
    text.len = MIN(text.len - 2, sizeof(room->text) - MC_BIN_HEADER); /* without CRLF */
    header.body_len = (uint32_t)text.len;
    mc_bin_encode(&header, room->text);
    memcpy(room->text + MC_BIN_HEADER, text.data, text.len);
    return bytes_of(room->text, MC_BIN_HEADER + text.len);
}

/* ---- stats ---------------------------------------------------------------------------------------- */

struct stat_row {
    struct bytes name, value;
    uint64_t sum;
    bool is_number;
};

static bool stat_next_text(struct bytes *cursor, struct stat_row *row)
{
    const char *end = cursor->len == 0 ? NULL : memchr(cursor->data, '\n', cursor->len);
    struct bytes line, word;

    if (end == NULL)
        return false;
    line = bytes_of(cursor->data, (size_t)(end - cursor->data));
    if (line.len > 0 && line.data[line.len - 1] == '\r')
        line.len--;
    *cursor = bytes_skip(*cursor, (size_t)(end - cursor->data) + 1);
    if (!mc_token_next(&line, &word) || !bytes_equal(word, BYTES("STAT")) ||
        !mc_token_next(&line, &row->name))
        return false;
    row->value = bytes_skip(line, line.len > 0 && line.data[0] == ' ' ? 1 : 0);
    return true;
}

/* A frame for each statistic; one without a key ends them. */
static bool stat_next_binary(struct bytes *cursor, struct stat_row *row)
{
    struct mc_bin_header header;
    struct bytes body;

    if (cursor->len < MC_BIN_HEADER)
        return false;
    mc_bin_decode(cursor->data, &header);
    body = bytes_skip(*cursor, MC_BIN_HEADER);
    if (header.key_len == 0 || header.status != MC_BIN_OK || body.len < header.body_len ||
        header.body_len < (uint32_t)header.key_len + header.extras_len)
        return false;
    row->name = bytes_first(bytes_skip(body, header.extras_len), header.key_len);
    row->value = bytes_first(bytes_skip(body, (size_t)header.extras_len + header.key_len),
                             header.body_len - header.key_len - header.extras_len);
    *cursor = bytes_skip(body, header.body_len);
    return true;
}

/* What is not a sum of servers although it is a number. */
static bool stat_is_first(struct bytes name)
{
    static const char *const names[] = {"pid", "time", "uptime", "pointer_size", "version",
                                        "hash_power_level", "max_connections", "threads"};

    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (bytes_equal(name, bytes_of_string(names[i])))
            return true;
    return false;
}

/* Servers name the same things in the same order: the search begins where the last one ended. */
static uint32_t stat_find(const struct stat_row *rows, uint32_t count, uint32_t from, struct bytes name)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (from + i) % count;

        if (bytes_equal(rows[at].name, name))
            return at;
    }
    return count;
}

static uint32_t stats_collect(struct fanout *fanout, struct stat_row *rows)
{
    bool is_binary = fanout->dialect == DIALECT_MC_BINARY;
    uint32_t count = 0;

    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct bytes cursor = buffer_bytes(&fanout->parts[p].reply);
        struct stat_row row;
        uint32_t from = 0, left = STATS_NAMES_MAX; /* a line costs a search: not as many as a server likes */

        while (left-- > 0 &&
               (is_binary ? stat_next_binary(&cursor, &row) : stat_next_text(&cursor, &row))) {
            uint32_t at = count == 0 ? 0 : stat_find(rows, count, from, row.name);

            row.is_number = bytes_to_u64(row.value, UINT64_MAX, &row.sum);
            if (at < count) {
                if (rows[at].is_number && row.is_number && !stat_is_first(row.name))
                    rows[at].sum += row.sum;
                from = at + 1;
            } else if (count < STATS_NAMES_MAX) {
                rows[count++] = row;
            }
        }
    }
    return count;
}

static bool stat_put(struct fanout *fanout, const struct stat_row *row, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    char digits[20], frame[MC_BIN_HEADER];
    struct bytes value =
        row->is_number ? bytes_of(digits, u64_to_digits(row->sum, digits)) : row->value;
    struct mc_bin_header header = {.magic = MC_BIN_RESPONSE,
                                   .opcode = fanout->parent->bin_opcode,
                                   .opaque = fanout->parent->bin_opaque,
                                   .key_len = (uint16_t)row->name.len,
                                   .body_len = (uint32_t)(row->name.len + value.len)};

    if (fanout->dialect == DIALECT_MC_BINARY) {
        mc_bin_encode(&header, frame);
        return outbuf_append(chunks, out, frame, sizeof(frame)) &&
               outbuf_append(chunks, out, row->name.data, row->name.len) &&
               outbuf_append(chunks, out, value.data, value.len);
    }
    return outbuf_append(chunks, out, "STAT ", 5) &&
           outbuf_append(chunks, out, row->name.data, row->name.len) &&
           outbuf_append(chunks, out, " ", 1) && outbuf_append(chunks, out, value.data, value.len) &&
           outbuf_append(chunks, out, "\r\n", 2);
}

static bool merge_stats(struct fanout *fanout, struct outbuf *out)
{
    struct stat_row *rows = mem_alloc(sizeof(*rows) * STATS_NAMES_MAX);
    struct stat_row end = {.name = BYTES_EMPTY, .value = BYTES_EMPTY};
    bool is_ok = rows != NULL;
    uint32_t count = is_ok ? stats_collect(fanout, rows) : 0;

    for (uint32_t i = 0; is_ok && i < count; i++)
        is_ok = stat_put(fanout, &rows[i], out);
    mem_free(rows);
    if (fanout->dialect == DIALECT_MC_BINARY)
        return is_ok && stat_put(fanout, &end, out);
    return is_ok && outbuf_append(&fanout->pool->proxy->chunks, out, "END\r\n", 5);
}

bool memcache_merge_all(struct fanout *fanout, struct outbuf *out)
{
    struct bytes first = buffer_bytes(&fanout->parts[0].reply);
    struct bytes cursor = first;
    struct stat_row row;

    if (fanout->parent->command == MC_stats &&
        (fanout->dialect == DIALECT_MC_BINARY ? stat_next_binary(&cursor, &row)
                                              : stat_next_text(&cursor, &row)))
        return merge_stats(fanout, out);
    return outbuf_append(&fanout->pool->proxy->chunks, out, first.data, first.len);
}
