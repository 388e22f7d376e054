/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache.c - text requests in.
 *
 *     line            find the newline (bounded), take the verb
 *      |-- get        every token is a key
 *      |-- others     split into tokens, check, read the numbers
 *      '-- storage    the length first: from then on the block's end is known, whatever else is wrong
 *
 *   I1  Where a storage line is refused but its length is readable, exactly length + 2 bytes behind it
 *       are thrown away; if they do not end in CRLF the connection closes.
 *   I2  Nothing is looked at twice but the command line of a block that is still on its way.
 *   I3  Answers do not depend on how the stream was cut: a refusal is always told first, with the line,
 *       then the block is dropped piece by piece.
 *
 * Differs from memcached on purpose: a payload is never executed because the line before it was wrong;
 * control bytes in keys are refused (a node takes those but NUL); numbers are plain decimals.
 */
#include "common/proto/memcache_private.h"
#include "common/base/mem.h"

#define DATA_LEN_MAX   INT32_MAX
#define KEYS_CAP_FIRST 64
#define KEYS_CAP_KEPT  1024u

void mc_keys_init(struct mc_keys *keys)
{
    keys->items = NULL;
    keys->cap = 0;
}

void mc_keys_deinit(struct mc_keys *keys)
{
    mem_free(keys->items);
    keys->items = NULL;
    keys->cap = 0;
}

void mc_keys_trim(struct mc_keys *keys)
{
    if (keys->cap > KEYS_CAP_KEPT)
        mc_keys_deinit(keys);
}

NOINLINE bool mc_keys_grow(struct mc_keys *keys)
{
    uint32_t cap = keys->cap == 0 ? KEYS_CAP_FIRST : keys->cap * 2; /* bounded by the line's length */
    struct bytes *items = mem_realloc(keys->items, cap * sizeof(*items));

    if (items == NULL)
        return false;
    keys->items = items;
    keys->cap = cap;
    return true;
}

/* ---- tokens ------------------------------------------------------------------------------- */

/* The first byte that is a blank, a control byte or DEL. There must be one before `limit`, as there is
 * one at each line's end. */
static inline const char *token_end(const char *p, const char *limit)
{
    while (limit - p >= 8) {
        unsigned len = mc_token_span(p);

        p += len;
        if (len < 8)
            return p;
    }
    while ((unsigned char)*p > ' ' && *p != 0x7f)
        p++;
    return p;
}

/* The token at p (not a blank) up to the next blank or the line's end. */
static inline struct bytes token_read(const char *p, const char *line_end, const char *limit,
                                      bool *is_dirty)
{
    const char *end = token_end(p, limit);

    *is_dirty = false;
    while (UNLIKELY(end < line_end && *end != ' ')) {
        *is_dirty = true;
        end = token_end(end + 1, limit);
    }
    return bytes_of(p, (size_t)(end - p));
}

static inline const char *blanks_skip(const char *p, const char *end)
{
    while (p < end && *p == ' ')
        p++;
    return p;
}

static void line_split(const char *p, const char *end, const char *limit, struct mc_line *out)
{
    const char *start = p;
    size_t used = 0;

    out->count = out->dirty = 0;
    out->is_dirty = false;
    while ((p = blanks_skip(p, end)) < end) {
        bool is_dirty;
        struct bytes token = token_read(p, end, limit, &is_dirty);

        if (out->count < MC_TOKENS_MAX) {
            out->tokens[out->count] = token;
            out->dirty |= (uint32_t)is_dirty << out->count;
        }
        out->is_dirty |= is_dirty;
        out->count++;
        used += token.len + 1;
        p = token.data + token.len;
    }
    out->is_tidy = used == (size_t)(end - start);
}

bool mc_token_next(struct bytes *line, struct bytes *token)
{
    const char *end = line->data + line->len, *p = blanks_skip(line->data, end), *next;

    if (p == end)
        return false;
    next = memchr(p, ' ', (size_t)(end - p));
    if (next == NULL)
        next = end;
    *token = bytes_of(p, (size_t)(next - p));
    *line = bytes_of(next, (size_t)(end - next));
    return true;
}

bool mc_number_u64(struct bytes token, uint64_t max, uint64_t *out, bool *is_tidy)
{
    uint64_t value = 0;

    if (token.len == 0)
        return false;
    if (token.len > 1 && token.data[0] == '0')
        *is_tidy = false;
    for (size_t i = 0; i < token.len; i++) {
        unsigned digit = (unsigned char)token.data[i] - (unsigned)'0';

        /* 18 digits always fit. */
        if (digit > 9 || (i >= 18 && (digit > max || value > (max - digit) / 10)))
            return false;
        value = value * 10 + digit;
    }
    if (value > max)
        return false;
    *out = value;
    return true;
}

bool mc_number_i32(struct bytes token, int32_t *out, bool *is_tidy)
{
    uint64_t value;
    bool is_negative = token.len > 0 && token.data[0] == '-';

    if (!mc_number_u64(bytes_skip(token, is_negative), is_negative ? (uint64_t)INT32_MAX + 1 : UINT32_MAX, &value,
                       is_tidy))
        return false;
    if ((is_negative && value == 0) || (!is_negative && value > INT32_MAX))
        *is_tidy = false;
    *out = (int32_t)(uint32_t)(is_negative ? 0 - value : value);
    return true;
}

const char *mc_key_error(struct bytes key, bool is_dirty, const struct proto_limits *limits)
{
    if (UNLIKELY(key.len > limits->key_max))
        return MC_ERROR_KEY_LONG;
    if (LIKELY(!is_dirty) || (limits->has_control_keys && memchr(key.data, '\0', key.len) == NULL))
        return NULL;
    return MC_ERROR_KEY_INVALID;
}

/* ---- answers ------------------------------------------------------------------------------ */

static enum parse_result request_bad(struct mc_parser *parser, struct mc_request *out,
                                     const char *error)
{
    *parser = (struct mc_parser){0};
    out->error = error;
    return PARSE_BAD;
}

static enum parse_result request_done(struct mc_parser *parser, struct mc_request *out, size_t len)
{
    parser->scan_off = parser->need = 0;
    out->len = len;
    return PARSE_OK;
}

/* error NULL: all is well. */
static enum parse_result line_done(struct mc_parser *parser, struct mc_request *out,
                                   const char *error)
{
    if (UNLIKELY(error != NULL)) {
        out->error = error;
        out->status = out->is_noreply ? MC_REQ_SKIP : MC_REQ_ERROR;
    }
    return request_done(parser, out, out->line_len);
}

/* The block of value_len bytes behind the line. */
static enum parse_result block_done(struct mc_parser *parser, const struct proto_limits *limits,
                                    struct bytes data, struct mc_request *out, const char *error)
{
    uint64_t total = out->line_len + out->value_len + 2;
    const char *block_end;

    if (error == NULL && UNLIKELY(out->value_len > limits->value_max))
        error = MC_ERROR_TOO_LARGE;
    if (UNLIKELY(error != NULL)) {
        parser->swallow = out->value_len + 2;
        return line_done(parser, out, error);
    }
    if (data.len < total) {
        parser->scan_off = out->line_len - 1;
        parser->need = (uint32_t)total;
        out->partial_data_len = out->value_len;
        return PARSE_MORE;
    }
    block_end = data.data + total - 2;
    if (UNLIKELY(block_end[0] != '\r' || block_end[1] != '\n'))
        return request_bad(parser, out, MC_ERROR_DATA_CHUNK);
    out->data = bytes_of(data.data + out->line_len, out->value_len);
    return request_done(parser, out, total);
}

static NOINLINE enum parse_result swallow(struct mc_parser *parser, struct bytes data,
                                          struct mc_request *out)
{
    size_t len = (size_t)MIN(parser->swallow, (uint64_t)data.len);
    uint64_t left = parser->swallow - len;

    /* Of the last two bytes, those that are in this piece. */
    if ((left == 0 && data.data[len - 1] != '\n') ||
        (left <= 1 && len + left >= 2 && data.data[len + left - 2] != '\r'))
        return request_bad(parser, out, MC_ERROR_DATA_CHUNK);
    parser->swallow = left;
    out->status = MC_REQ_SKIP;
    return request_done(parser, out, len);
}

/* ---- the kinds of commands ---------------------------------------------------------------- */

static bool is_noreply_last(const struct mc_line *line, uint32_t index_min)
{
    return line->count > index_min && line->count <= MC_TOKENS_MAX &&
           MC_BYTES_ARE(line->tokens[line->count - 1], "noreply");
}

/* Makes token 0 the request's key. */
static const char *key_take(const struct mc_line *line, const struct proto_limits *limits,
                            struct mc_keys *keys, struct mc_request *out)
{
    const char *error = mc_key_error(line->tokens[0], line->dirty & 1, limits);

    if (UNLIKELY(error != NULL))
        return error;
    if (UNLIKELY(keys->cap == 0) && !mc_keys_grow(keys))
        return MC_ERROR_NO_MEMORY;
    keys->items[0] = out->route_key = line->tokens[0];
    out->keys = keys->items;
    out->key_count = 1;
    return NULL;
}

static const char *get_line_parse(const char *p, const char *end, const char *limit,
                                  const struct proto_limits *limits, struct mc_keys *keys,
                                  struct mc_request *out)
{
    bool takes_exptime = out->verb == MC_gat || out->verb == MC_gats;
    const char *start = p, *error = NULL;
    size_t used = 0;
    uint32_t count = 0;

    while ((p = blanks_skip(p, end)) < end) {
        bool is_dirty;
        struct bytes token = token_read(p, end, limit, &is_dirty);

        p = token.data + token.len;
        used += token.len + 1;
        if (takes_exptime) {
            takes_exptime = false;
            if (!mc_number_i32(token, &out->exptime, &out->is_canonical))
                error = MC_ERROR_EXPTIME;
            continue;
        }
        if (UNLIKELY(count == keys->cap) && !mc_keys_grow(keys))
            return MC_ERROR_NO_MEMORY;
        if (error == NULL)
            error = mc_key_error(token, is_dirty, limits);
        keys->items[count++] = token;
    }
    if (UNLIKELY(count == 0))
        return error != NULL ? error : MC_ERROR_SYNTAX;
    if (UNLIKELY(used != (size_t)(end - start)))
        out->is_canonical = false;
    out->keys = keys->items;
    out->key_count = count;
    out->route_key = keys->items[0];
    return error;
}

/* Everything but the length, which the caller has read. */
static const char *store_line_check(const struct mc_line *line, const struct proto_limits *limits,
                                    struct mc_keys *keys, struct mc_request *out)
{
    bool is_cas = out->verb == MC_cas;
    uint32_t count_min = 4u + is_cas;
    uint64_t flags;
    const char *error;

    if (line->count < count_min || line->count > count_min + 1)
        return MC_ERROR_SYNTAX;
    out->is_noreply = is_noreply_last(line, 4);
    if (line->count > count_min && !out->is_noreply)
        out->is_canonical = false; /* memcached does not mind; nobody else needs to see it */
    error = key_take(line, limits, keys, out);
    if (UNLIKELY(error != NULL))
        return error;
    if (!mc_number_u64(line->tokens[1], UINT32_MAX, &flags, &out->is_canonical) ||
        !mc_number_i32(line->tokens[2], &out->exptime, &out->is_canonical) ||
        (is_cas && !mc_number_u64(line->tokens[4], UINT64_MAX, &out->cas, &out->is_canonical)))
        return MC_ERROR_FORMAT;
    out->flags = (uint32_t)flags;
    return NULL;
}

static enum parse_result store_parse(struct mc_parser *parser, const struct mc_line *line,
                                     const struct proto_limits *limits, struct mc_keys *keys,
                                     struct bytes data, struct mc_request *out)
{
    if (UNLIKELY(line->count < 4 || !mc_number_u64(line->tokens[3], DATA_LEN_MAX, &out->value_len,
                                                   &out->is_canonical)))
        return request_bad(parser, out, MC_ERROR_DATA_LENGTH);
    return block_done(parser, limits, data, out, store_line_check(line, limits, keys, out));
}

static const char *delete_line_check(const struct mc_line *line, struct mc_request *out)
{
    bool has_zero, is_valid;

    if (line->count == 1)
        return NULL;
    /* An old client's "delete key 0": the time that was once the item's hold. */
    has_zero = MC_BYTES_ARE(line->tokens[1], "0");
    out->is_noreply = is_noreply_last(line, 1);
    if (has_zero)
        out->is_canonical = false;
    is_valid = line->count == 2 ? has_zero || out->is_noreply : has_zero && out->is_noreply;
    return is_valid ? NULL : MC_ERROR_FORMAT ".  Usage: delete <key> [noreply]";
}

static const char *key_line_check(const struct mc_line *line, const struct proto_limits *limits,
                                  struct mc_keys *keys, struct mc_request *out)
{
    const char *error, *key_error;
    bool is_number = true;

    if (line->count < 1 || line->count > 3 || (line->count == 1 && out->verb != MC_delete))
        return MC_ERROR_SYNTAX;
    if (out->verb == MC_delete) {
        error = delete_line_check(line, out);
    } else {
        out->is_noreply = is_noreply_last(line, 2);
        if (line->count == 3 && !out->is_noreply)
            out->is_canonical = false;
        is_number = out->verb == MC_touch
                        ? mc_number_i32(line->tokens[1], &out->exptime, &out->is_canonical)
                        : mc_number_u64(line->tokens[1], UINT64_MAX, &out->delta,
                                        &out->is_canonical);
        error = is_number ? NULL : out->verb == MC_touch ? MC_ERROR_EXPTIME : MC_ERROR_DELTA;
    }
    key_error = key_take(line, limits, keys, out);
    return key_error != NULL ? key_error : error;
}

static enum parse_result meta_store_parse(struct mc_parser *parser, const struct mc_line *line,
                                          const struct proto_limits *limits, struct mc_keys *keys,
                                          struct bytes data, struct mc_request *out)
{
    if (line->count < 2 ||
        !mc_number_u64(line->tokens[1], DATA_LEN_MAX, &out->value_len, &out->is_canonical))
        return request_bad(parser, out, MC_ERROR_DATA_LENGTH);
    return block_done(parser, limits, data, out, mc_meta_line_parse(line, 2, limits, keys, out));
}

static const char *meta_check(const struct mc_line *line, const struct proto_limits *limits,
                              struct mc_keys *keys, struct mc_request *out)
{
    if (line->count == 0)
        return out->verb == MC_me ? MC_ERROR_FORMAT : MC_ERROR_SYNTAX;
    return mc_meta_line_parse(line, 1, limits, keys, out);
}

/* What the proxy answers itself or sends to all servers. */
static const char *local_line_check(const struct mc_line *line, struct mc_request *out)
{
    uint64_t level;

    if (line->is_dirty)
        return MC_ERROR_FORMAT;
    if (out->verb == MC_flush_all) {
        if (line->count > 2)
            return MC_ERROR_SYNTAX;
        out->is_noreply = is_noreply_last(line, 0);
        if (line->count > out->is_noreply &&
            !mc_number_i32(line->tokens[0], &out->exptime, &out->is_canonical))
            return MC_ERROR_EXPTIME;
    } else if (out->verb == MC_verbosity) {
        if (line->count < 1 || line->count > 2)
            return MC_ERROR_SYNTAX;
        out->is_noreply = is_noreply_last(line, 0); /* it may be in the number's place: then nobody hears of that */
        if (!mc_number_u64(line->tokens[0], UINT32_MAX, &level, &out->is_canonical))
            return MC_ERROR_FORMAT;
    } else {
        return NULL;
    }
    if (line->count == 2 && !out->is_noreply)
        out->is_canonical = false; /* a word that memcached does not look at */
    return NULL;
}

/* Whether an unknown verb is a storage command in disguise ("SET k 0 0 9", "set<TAB>k..."): a block
 * follows that must not be taken for commands. */
static bool is_store_disguised(struct bytes word, const struct mc_line *line)
{
    char name[8];
    size_t len = 0;
    enum mc_verb verb;
    uint8_t kind;

    while (len < word.len && len < sizeof(name) && ascii_lower(word.data[len]) >= 'a' &&
           ascii_lower(word.data[len]) <= 'z') {
        name[len] = ascii_lower(word.data[len]);
        len++;
    }
    verb = mc_verb_find(bytes_of(name, len));
    kind = mc_verb_info(verb)->kind;
    if (verb == MC_none || (kind != MC_KIND_STORE && kind != MC_KIND_META_STORE))
        return false;
    if (len == word.len)
        return line->count >= (kind == MC_KIND_STORE ? 4 : 2);
    return (unsigned char)word.data[len] < ' ';
}

static NOINLINE enum parse_result unknown_done(struct mc_parser *parser, struct bytes word,
                                               const struct mc_line *line, struct mc_request *out)
{
    struct bytes last = BYTES_EMPTY;

    if (line->count > 0)
        last = line->tokens[MIN(line->count, (uint32_t)MC_TOKENS_MAX) - 1];
    /* A web browser, or one that was made to talk to us: it must not get a word in. */
    if (MC_BYTES_ARE(bytes_first(last, 5), "HTTP/") || MC_BYTES_ARE(word, "POST") ||
        bytes_equal_nocase(word, BYTES("Host:")))
        return request_bad(parser, out, "");
    if (is_store_disguised(word, line))
        return request_bad(parser, out, MC_ERROR_SYNTAX);
    return line_done(parser, out, MC_ERROR_SYNTAX);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static enum parse_result line_parse(struct mc_parser *parser, struct mc_keys *keys,
                                    const struct proto_limits *limits, struct bytes data,
                                    const char *line_end, struct mc_request *out)
{
    const char *start = blanks_skip(data.data, line_end), *limit = data.data + data.len, *args;
    struct mc_line line;
    struct bytes word = BYTES_EMPTY;
    bool is_dirty = false;
    uint8_t kind;

    if (LIKELY(start < line_end))
        word = token_read(start, line_end, limit, &is_dirty);
    args = start + word.len;
    if (UNLIKELY(start != data.data))
        out->is_canonical = false;
    out->verb = mc_verb_find(word);
    kind = mc_verb_info(out->verb)->kind;
    out->is_write = mc_verb_info(out->verb)->is_write;
    if (kind == MC_KIND_GET)
        return line_done(parser, out,
                         get_line_parse(args, line_end, limit, limits, keys, out));
    line_split(args, line_end, limit, &line);
    if (UNLIKELY(!line.is_tidy))
        out->is_canonical = false;
    if (UNLIKELY(out->verb == MC_none))
        return unknown_done(parser, word, &line, out);
    switch ((enum mc_kind)kind) {
    case MC_KIND_GET:
        break;
    case MC_KIND_STORE:
        return store_parse(parser, &line, limits, keys, data, out);
    case MC_KIND_KEY_LINE:
        return line_done(parser, out, key_line_check(&line, limits, keys, out));
    case MC_KIND_META:
        return line_done(parser, out, meta_check(&line, limits, keys, out));
    case MC_KIND_META_STORE:
        return meta_store_parse(parser, &line, limits, keys, data, out);
    case MC_KIND_META_NOOP:
        if (line.count > 0)
            out->is_canonical = false; /* memcached does not look at them */
        return line_done(parser, out, NULL);
    case MC_KIND_LOCAL:
        return line_done(parser, out, local_line_check(&line, out));
    }
    UNREACHABLE("every kind is handled");
}

enum parse_result mc_parse(struct mc_parser *parser, struct mc_keys *keys,
                           const struct proto_limits *limits, struct bytes data,
                           struct mc_request *out)
{
    size_t reach = MIN(data.len, (size_t)limits->line_max + 1);
    const char *newline, *line_end;

    ASSERT(data.len > 0 && parser->scan_off <= data.len);
    *out = (struct mc_request){.is_canonical = true};
    if (UNLIKELY(parser->swallow > 0))
        return swallow(parser, data, out);
    newline = memchr(data.data + parser->scan_off, '\n', reach - parser->scan_off);
    if (UNLIKELY(newline == NULL)) {
        if (data.len > limits->line_max)
            return request_bad(parser, out, MC_ERROR_LINE_LONG);
        parser->scan_off = (uint32_t)data.len;
        parser->need = 0;
        return PARSE_MORE;
    }
    line_end = newline;
    if (LIKELY(line_end > data.data && line_end[-1] == '\r'))
        line_end--;
    else
        out->is_canonical = false;
    out->line = bytes_of(data.data, (size_t)(line_end - data.data));
    out->line_len = (uint32_t)(newline + 1 - data.data);
    return line_parse(parser, keys, limits, data, line_end, out);
}
