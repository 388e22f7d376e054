/* SPDX-License-Identifier: Apache-2.0 */
/* memcache_compose.c - command lines out: one blank, plain numbers, CRLF, nothing that says nothing. */
#include "common/proto/memcache_private.h"

/* A cursor whose error sticks: what does not fit is not written, and asked for once at the end. */
struct writer {
    char *p, *end;
    bool is_full;
};

static void put(struct writer *writer, struct bytes b)
{
    if (writer->is_full || (size_t)(writer->end - writer->p) < b.len) {
        writer->is_full = true;
        return;
    }
    memcpy(writer->p, b.data, b.len);
    writer->p += b.len;
}

static void put_token(struct writer *writer, struct bytes b)
{
    put(writer, BYTES(" "));
    put(writer, b);
}

static void put_u64(struct writer *writer, uint64_t value)
{
    char digits[20];

    put_token(writer, bytes_of(digits, u64_to_digits(value, digits)));
}

static void put_i32(struct writer *writer, int32_t value)
{
    char digits[21];

    put_token(writer, bytes_of(digits, i64_to_digits(value, digits)));
}

static void put_get(struct writer *writer, const struct mc_request *request,
                    const struct bytes *keys, uint32_t key_count)
{
    if (request->verb == MC_gat || request->verb == MC_gats)
        put_i32(writer, request->exptime);
    for (uint32_t i = 0; i < key_count; i++)
        put_token(writer, keys[i]);
}

static void put_store(struct writer *writer, const struct mc_request *request)
{
    put_token(writer, request->keys[0]);
    put_u64(writer, request->flags);
    put_i32(writer, request->exptime);
    put_u64(writer, request->value_len);
    if (request->verb == MC_cas)
        put_u64(writer, request->cas);
}

static void put_key_line(struct writer *writer, const struct mc_request *request)
{
    put_token(writer, request->keys[0]);
    if (request->verb == MC_touch)
        put_i32(writer, request->exptime);
    else if (request->verb != MC_delete)
        put_u64(writer, request->delta);
}

/* `args` behind the verb. A store's length is written anew; q goes when the caller took it back. */
static void put_meta(struct writer *writer, const struct mc_request *request, struct bytes args)
{
    bool is_store = request->verb == MC_ms;
    struct bytes token;

    for (uint32_t i = 0; mc_token_next(&args, &token); i++) {
        if (is_store && i == 1)
            put_u64(writer, request->value_len);
        else if (i == 0 || request->verb == MC_me || request->is_quiet || token.data[0] != 'q')
            put_token(writer, token);
    }
}

/* flush_all and verbosity: their number, if there is one; the caller adds noreply, where it is wanted. */
static void put_local(struct writer *writer, const struct mc_request *request, struct bytes args)
{
    struct bytes token;
    uint64_t level;
    bool is_tidy;

    if (request->verb == MC_flush_all) {
        if (mc_token_next(&args, &token) && !MC_BYTES_ARE(token, "noreply"))
            put_i32(writer, request->exptime);
        return;
    }
    if (request->verb == MC_verbosity) {
        if (mc_token_next(&args, &token) && mc_number_u64(token, UINT32_MAX, &level, &is_tidy))
            put_u64(writer, level);
        return;
    }
    while (mc_token_next(&args, &token))
        put_token(writer, token);
}

size_t mc_compose_line(const struct mc_request *request, const struct bytes *keys, uint32_t key_count,
                       char *out, size_t cap)
{
    const struct mc_verb_info *info = mc_verb_info(request->verb);
    struct writer writer = {.p = out, .end = out + cap};
    struct bytes args = request->line, verb;

    ASSERT(request->verb != MC_none && mc_token_next(&args, &verb));
    if (key_count == 0) {
        keys = request->keys;
        key_count = request->key_count;
    }
    put(&writer, bytes_of_string(info->name));
    switch ((enum mc_kind)info->kind) {
    case MC_KIND_GET:
        put_get(&writer, request, keys, key_count);
        break;
    case MC_KIND_STORE:
        put_store(&writer, request);
        break;
    case MC_KIND_KEY_LINE:
        put_key_line(&writer, request);
        break;
    case MC_KIND_META:
    case MC_KIND_META_STORE:
        put_meta(&writer, request, args);
        break;
    case MC_KIND_META_NOOP:
        break;
    case MC_KIND_LOCAL:
        put_local(&writer, request, args);
        break;
    }
    if (request->is_noreply)
        put_token(&writer, BYTES("noreply"));
    put(&writer, BYTES("\r\n"));
    return writer.is_full ? 0 : (size_t)(writer.p - out);
}
