/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache_binary.c - the binary protocol: requests in, replies through.
 *
 *     0       1       2   3   4       5      6   7   8 .. 11    12 .. 15   16 .. 23
 *     magic   opcode  key     extras  data   status  body       opaque     cas
 *                     length  length  type           length
 *
 * All big-endian; the body is extras, key, value. A request is valid if and only if its opcode is known
 * and the body has the parts that this opcode has. What is not valid is answered and skipped, as the
 * header says how long it is, unless the header contradicts itself: then the connection closes.
 */
#include "common/proto/memcache_private.h"

#define BODY_LEN_MAX INT32_MAX

static uint64_t read_be(const char *data, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++)
        value = value << 8 | (unsigned char)data[i];
    return value;
}

static void write_be(char *out, size_t size, uint64_t value)
{
    for (size_t i = size; i-- > 0; value >>= 8)
        out[i] = (char)(value & 0xff);
}

void mc_bin_decode(const char data[MC_BIN_HEADER], struct mc_bin_header *out)
{
    out->magic = (uint8_t)data[0];
    out->opcode = (uint8_t)data[1];
    out->key_len = (uint16_t)read_be(data + 2, 2);
    out->extras_len = (uint8_t)data[4];
    out->data_type = (uint8_t)data[5];
    out->status = (uint16_t)read_be(data + 6, 2);
    out->body_len = (uint32_t)read_be(data + 8, 4);
    out->opaque = (uint32_t)read_be(data + 12, 4);
    out->cas = read_be(data + 16, 8);
}

void mc_bin_encode(const struct mc_bin_header *header, char out[MC_BIN_HEADER])
{
    out[0] = (char)header->magic;
    out[1] = (char)header->opcode;
    write_be(out + 2, 2, header->key_len);
    out[4] = (char)header->extras_len;
    out[5] = (char)header->data_type;
    write_be(out + 6, 2, header->status);
    write_be(out + 8, 4, header->body_len);
    write_be(out + 12, 4, header->opaque);
    write_be(out + 16, 8, header->cas);
}

const char *mc_bin_status_text(uint16_t status)
{
    switch (status) {
    case MC_BIN_OK:
        return "";
    case MC_BIN_NOT_FOUND:
        return "Not found";
    case MC_BIN_EXISTS:
        return "Data exists for key.";
    case MC_BIN_TOO_LARGE:
        return "Too large.";
    case MC_BIN_INVALID:
        return "Invalid arguments";
    case MC_BIN_NOT_STORED:
        return "Not stored.";
    case MC_BIN_NON_NUMERIC:
        return "Non-numeric server-side value for incr or decr";
    case MC_BIN_AUTH_ERROR:
        return "Auth failure.";
    case MC_BIN_AUTH_CONTINUE:
        return "";
    case MC_BIN_UNKNOWN_COMMAND:
        return "Unknown command";
    case MC_BIN_NO_MEMORY:
        return "Out of memory";
    default:
        return "UNHANDLED ERROR"; /* memcached's word for it */
    }
}

size_t mc_bin_compose_status(const struct mc_bin_header *request, uint16_t status,
                             char out[MC_BIN_STATUS_REPLY_MAX])
{
    const char *text = mc_bin_status_text(status);
    size_t len = strlen(text);
    struct mc_bin_header header = {.magic = MC_BIN_RESPONSE,
                                   .opcode = request->opcode,
                                   .status = status,
                                   .body_len = (uint32_t)len,
                                   .opaque = request->opaque};

    ASSERT(MC_BIN_HEADER + len <= MC_BIN_STATUS_REPLY_MAX);
    mc_bin_encode(&header, out);
    memcpy(out + MC_BIN_HEADER, text, len);
    return MC_BIN_HEADER + len;
}

/* ---- requests ----------------------------------------------------------------------------- */

enum key_need { KEY_NONE, KEY_MAY, KEY_MUST };

/* Whether the body has the parts that the verb has. */
static bool is_shaped(const struct mc_bin_header *header, uint8_t extras_len, enum key_need key,
                      bool has_value)
{
    return header->extras_len == extras_len && (key != KEY_NONE || header->key_len == 0) &&
           (key != KEY_MUST || header->key_len > 0) &&
           (has_value || header->body_len == (uint32_t)header->extras_len + header->key_len);
}

static bool is_body_right(const struct mc_bin_header *header, enum mc_verb verb)
{
    switch ((int)verb) {
    case MC_set:
    case MC_add:
    case MC_replace:
        return is_shaped(header, 8, KEY_MUST, true);
    case MC_append:
    case MC_prepend:
        return is_shaped(header, 0, KEY_MUST, true);
    case MC_get:
    case MC_getk:
    case MC_delete:
        return is_shaped(header, 0, KEY_MUST, false);
    case MC_gat:
    case MC_gatk:
    case MC_touch:
        return is_shaped(header, 4, KEY_MUST, false);
    case MC_incr:
    case MC_decr:
        return is_shaped(header, 20, KEY_MUST, false);
    case MC_flush_all:
        return is_shaped(header, 0, KEY_NONE, false) || is_shaped(header, 4, KEY_NONE, false);
    case MC_stats:
        return is_shaped(header, 0, KEY_MAY, false);
    case MC_version:
    case MC_quit:
    case MC_noop:
        return is_shaped(header, 0, KEY_NONE, false);
    case MC_sasl_list:
        return is_shaped(header, 0, KEY_NONE, false);
    case MC_sasl_auth:
    case MC_sasl_step:
        return is_shaped(header, 0, KEY_MUST, true);
    default:
        return false;
    }
}

static bool is_sasl(const struct mc_verb_info *verb)
{
    return verb->id == MC_sasl_list || verb->id == MC_sasl_auth || verb->id == MC_sasl_step;
}

/* In memcached's order. */
static uint16_t request_judge(const struct mc_bin_header *header, const struct mc_verb_info *verb,
                              const struct proto_limits *limits)
{
    if (header->key_len > limits->key_max)
        return MC_BIN_INVALID;
    /* memcached 1.6 has no verbosity here, and no SASL unless built and started with it. */
    if (verb == NULL || verb->id == MC_verbosity ||
        (verb->is_denied && !(limits->has_sasl && is_sasl(verb))))
        return MC_BIN_UNKNOWN_COMMAND;
    if (!is_body_right(header, (enum mc_verb)verb->id))
        return MC_BIN_INVALID;
    if (header->body_len - header->extras_len - header->key_len > limits->value_max)
        return MC_BIN_TOO_LARGE;
    return 0;
}

static enum parse_result binary_bad(struct mc_bin_parser *parser, struct mc_bin_request *out,
                                    uint16_t status)
{
    *parser = (struct mc_bin_parser){0};
    out->error_status = status;
    return PARSE_BAD;
}

static enum parse_result binary_done(struct mc_bin_parser *parser, struct mc_bin_request *out,
                                     size_t len)
{
    parser->need = 0;
    out->len = len;
    return PARSE_OK;
}

static enum parse_result binary_more(struct mc_bin_parser *parser, uint64_t need)
{
    parser->need = (uint32_t)need;
    return PARSE_MORE;
}

/* A value that is refused: whose it would have been is told. */
static enum parse_result large_parse(struct mc_bin_parser *parser, struct bytes data, struct mc_bin_request *out)
{
    const struct mc_bin_header *header = &out->header;
    size_t key_off = (size_t)MC_BIN_HEADER + header->extras_len, value_off = key_off + header->key_len;

    if (data.len < value_off)
        return binary_more(parser, value_off);
    out->extras = bytes_of(data.data + MC_BIN_HEADER, header->extras_len);
    out->key = bytes_of(data.data + key_off, header->key_len);
    out->error_status = MC_BIN_TOO_LARGE;
    parser->swallow = MC_BIN_HEADER + (uint64_t)header->body_len - value_off;
    return binary_done(parser, out, value_off);
}

static enum parse_result body_parse(struct mc_bin_parser *parser, struct bytes data,
                                    struct mc_bin_request *out)
{
    const struct mc_bin_header *header = &out->header;
    uint64_t key_off = MC_BIN_HEADER + (uint64_t)header->extras_len;
    uint64_t value_off = key_off + header->key_len;
    uint64_t total = MC_BIN_HEADER + (uint64_t)header->body_len;

    if (data.len < value_off)
        return binary_more(parser, value_off);
    out->extras = bytes_of(data.data + MC_BIN_HEADER, header->extras_len);
    out->key = bytes_of(data.data + key_off, header->key_len);
    if (data.len < total) {
        out->partial_len = total;
        return binary_more(parser, total);
    }
    out->value = bytes_of(data.data + value_off, (size_t)(total - value_off));
    return binary_done(parser, out, (size_t)total);
}

enum parse_result mc_bin_parse(struct mc_bin_parser *parser, const struct proto_limits *limits,
                               struct bytes data, struct mc_bin_request *out)
{
    uint16_t error_status;

    ASSERT(data.len > 0);
    *out = (struct mc_bin_request){0};
    if (UNLIKELY(parser->swallow > 0)) {
        size_t len = (size_t)MIN(parser->swallow, (uint64_t)data.len);

        parser->swallow -= len;
        out->is_skip = true;
        return binary_done(parser, out, len);
    }
    if (UNLIKELY((uint8_t)data.data[0] != MC_BIN_REQUEST))
        return binary_bad(parser, out, 0);
    if (UNLIKELY(data.len < MC_BIN_HEADER))
        return binary_more(parser, MC_BIN_HEADER);
    mc_bin_decode(data.data, &out->header);
    out->verb = mc_verb_by_opcode(out->header.opcode, &out->is_quiet);
    if (UNLIKELY((uint32_t)out->header.key_len + out->header.extras_len > out->header.body_len))
        return binary_bad(parser, out, MC_BIN_UNKNOWN_COMMAND); /* as memcached */
    if (UNLIKELY(out->header.body_len > BODY_LEN_MAX))
        return binary_bad(parser, out, MC_BIN_TOO_LARGE);
    error_status = request_judge(&out->header, out->verb, limits);
    if (UNLIKELY(error_status == MC_BIN_TOO_LARGE))
        return large_parse(parser, data, out);
    if (UNLIKELY(error_status != 0)) {
        out->error_status = error_status;
        parser->swallow = out->header.body_len;
        return binary_done(parser, out, MC_BIN_HEADER);
    }
    return body_parse(parser, data, out);
}

/* ---- replies ------------------------------------------------------------------------------ */

enum reply_phase { PHASE_HEAD, PHASE_VALUE };

static enum parse_result binary_reply_bad(struct mc_bin_reply_parser *parser, const char *error)
{
    parser->error = error;
    return PARSE_BAD;
}

static enum parse_result value_pass(struct mc_bin_reply_parser *parser, struct bytes data,
                                    struct mc_bin_reply *out)
{
    out->scanned = (size_t)MIN(parser->body_left, (uint64_t)data.len);
    parser->body_left -= out->scanned;
    if (parser->body_left > 0)
        return PARSE_MORE;
    parser->phase_ = PHASE_HEAD;
    return PARSE_OK;
}

enum parse_result mc_bin_reply_scan(struct mc_bin_reply_parser *parser,
                                    const struct proto_limits *limits, struct bytes data,
                                    struct mc_bin_reply *out)
{
    struct mc_bin_header *header = &out->header;
    size_t head_len;

    *out = (struct mc_bin_reply){0};
    parser->need = 0;
    if (parser->phase_ == PHASE_VALUE)
        return value_pass(parser, data, out);
    if (data.len > 0 && UNLIKELY((uint8_t)data.data[0] != MC_BIN_RESPONSE))
        return binary_reply_bad(parser, "not a binary response");
    parser->need = MC_BIN_HEADER;
    if (data.len < MC_BIN_HEADER)
        return PARSE_MORE;
    mc_bin_decode(data.data, header);
    if (UNLIKELY((uint32_t)header->key_len + header->extras_len > header->body_len))
        return binary_reply_bad(parser, "lengths contradict each other");
    if (UNLIKELY(header->key_len > limits->key_max ||
                 header->body_len - header->key_len - header->extras_len > MC_REPLY_VALUE_MAX))
        return binary_reply_bad(parser, "too long");
    head_len = (size_t)MC_BIN_HEADER + header->extras_len + header->key_len;
    parser->need = (uint32_t)head_len;
    if (data.len < head_len)
        return PARSE_MORE;
    parser->need = 0;
    out->is_start = true;
    out->extras = bytes_of(data.data + MC_BIN_HEADER, header->extras_len);
    out->key = bytes_of(data.data + MC_BIN_HEADER + header->extras_len, header->key_len);
    out->scanned = head_len;
    parser->body_left = MC_BIN_HEADER + (uint64_t)header->body_len - head_len;
    if (parser->body_left == 0)
        return PARSE_OK;
    parser->phase_ = PHASE_VALUE;
    return PARSE_MORE;
}
