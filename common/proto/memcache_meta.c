/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache_meta.c - the flags of meta commands, as memcached 1.6.18 reads them.
 *
 * A flag is a letter with its token behind it; letters do not repeat. Flags that only later versions
 * know (E, x, lower-case modes) pass: a server that does not know them says so in one line.
 */
#include "common/proto/memcache_private.h"

#define OPAQUE_TOKEN_MAX 32 /* with the O */
#define ARGS_MAX         18 /* memcached's limit, with the key */

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Strict: padded, no stray bits; so a decoded key has one encoded form, and the key in a reply can be
 * compared with the one in the request as they are written. 0: not base64, or too long for out. */
static size_t base64_decode(struct bytes in, char *out, size_t cap)
{
    size_t len = 0, pad = 0;

    if (in.len == 0 || in.len % 4 != 0 || in.len / 4 * 3 > cap)
        return 0;
    if (in.data[in.len - 1] == '=')
        pad = in.data[in.len - 2] == '=' ? 2 : 1;
    for (size_t i = 0; i < in.len; i += 4) {
        size_t pad_here = i + 4 == in.len ? pad : 0;
        uint32_t group = 0;

        for (size_t j = 0; j < 4; j++) {
            int digit = j >= 4 - pad_here ? 0 : base64_digit(in.data[i + j]);

            if (digit < 0)
                return 0;
            group = group << 6 | (uint32_t)digit;
        }
        if ((group & ((1u << (8 * pad_here)) - 1)) != 0)
            return 0;
        for (size_t j = 0; j < 3 - pad_here; j++)
            out[len++] = (char)(group >> (16 - 8 * j));
    }
    return len;
}

struct meta_state {
    const char *error; /* the last one wins, as in memcached */
    bool has_error;
    char mode; /* 0: none */
};

static void meta_fail(struct meta_state *state, const char *error)
{
    state->error = error;
    state->has_error = true;
}

static void key_decode(struct meta_state *state, struct mc_keys *keys, struct mc_request *out)
{
    size_t len = base64_decode(out->keys[0], keys->scratch, sizeof(keys->scratch));

    if (len == 0)
        meta_fail(state, "CLIENT_ERROR error decoding key");
    out->is_key_base64 = true;
    out->route_key = bytes_of(keys->scratch, len);
}

static void flag_number(struct meta_state *state, char flag, struct bytes value,
                        struct mc_request *out)
{
    uint64_t number = 0;
    int32_t time = 0;
    bool is_tidy, is_time = flag == 'N' || flag == 'T' || flag == 'R';
    bool is_good = is_time ? mc_number_i32(value, &time, &is_tidy)
                           : mc_number_u64(value, flag == 'F' ? UINT32_MAX : UINT64_MAX, &number,
                                           &is_tidy);

    if (!is_good) {
        meta_fail(state, flag == 'J'   ? "CLIENT_ERROR invalid numeric initial value"
                         : flag == 'D' ? "CLIENT_ERROR invalid numeric delta value"
                         : flag == 'F' ? state->error
                                       : "CLIENT_ERROR bad token in command line format");
        return;
    }
    if (is_time)
        out->is_write = true;
    if (flag == 'T')
        out->exptime = time;
    else if (flag == 'F')
        out->flags = (uint32_t)number;
    else if (flag == 'C')
        out->cas = number;
    else if (flag == 'D')
        out->delta = number;
}

/* False: stop here. */
static bool flag_parse(struct meta_state *state, struct bytes token, struct mc_keys *keys,
                       struct mc_request *out)
{
    char flag = token.data[0];

    switch (flag) {
    case 'b':
        key_decode(state, keys, out);
        break;
    case 'N':
    case 'T':
    case 'R':
    case 'F':
    case 'C':
    case 'E':
    case 'J':
    case 'D':
        flag_number(state, flag, bytes_skip(token, 1), out);
        break;
    case 'M':
        if (token.len != 2)
            meta_fail(state, "CLIENT_ERROR incorrect length for M token");
        else
            state->mode = token.data[1];
        break;
    case 'O':
        out->opaque = bytes_skip(token, 1);
        break;
    case 'k':
        out->returns_key = true;
        break;
    case 'q':
        out->is_quiet = true;
        break;
    case 'P': /* for proxies in front of us */
    case 'L':
    case 'l':
    case 's':
    case 't':
    case 'c':
    case 'f':
    case 'v':
    case 'h':
    case 'u':
    case 'I':
    case 'x':
        break;
    default:
        meta_fail(state, "CLIENT_ERROR invalid flag");
        return false;
    }
    return true;
}

static bool is_mode_known(enum mc_verb verb, char mode)
{
    const char *modes = verb == MC_ms ? "EAPRSeaprs" : "IDid+-";

    return mode == 0 || strchr(modes, mode) != NULL;
}

/* "me key [b]": nothing else counts. */
static const char *debug_line_parse(const struct mc_line *line, const struct proto_limits *limits,
                                    struct mc_keys *keys, struct mc_request *out)
{
    struct meta_state state = {0};

    if (line->is_dirty && !limits->has_control_keys)
        return MC_ERROR_FORMAT;
    if (line->count >= 2 && MC_BYTES_ARE(line->tokens[1], "b"))
        key_decode(&state, keys, out);
    return state.has_error ? MC_ERROR_FORMAT : NULL;
}

static const char *flags_parse(const struct mc_line *line, uint32_t first, struct mc_keys *keys,
                               struct mc_request *out)
{
    struct meta_state state = {.error = MC_ERROR_FORMAT};
    uint64_t seen[2] = {0, 0};

    for (uint32_t i = first; i < line->count; i++) {
        unsigned char flag = (unsigned char)line->tokens[i].data[0];

        if (flag >= 127 || (seen[flag / 64] >> flag % 64 & 1) != 0) {
            meta_fail(&state, "CLIENT_ERROR duplicate flag");
            break;
        }
        seen[flag / 64] |= UINT64_C(1) << flag % 64;
        if ((line->dirty >> i & 1) != 0) {
            meta_fail(&state, "CLIENT_ERROR invalid flag");
            break;
        }
        if (!flag_parse(&state, line->tokens[i], keys, out))
            break;
    }
    if (state.has_error)
        return out->verb == MC_md || out->verb == MC_ma
                   ? "CLIENT_ERROR invalid or duplicate flag"
                   : state.error;
    if ((out->verb == MC_ms || out->verb == MC_ma) && !is_mode_known(out->verb, state.mode))
        return out->verb == MC_ms ? "CLIENT_ERROR invalid mode for ms M token"
                                  : "CLIENT_ERROR invalid mode for ma M token";
    if (out->opaque.len + 1 > OPAQUE_TOKEN_MAX)
        return "CLIENT_ERROR opaque token too long";
    return NULL;
}

const char *mc_meta_line_parse(const struct mc_line *line, uint32_t first_flag,
                               const struct proto_limits *limits, struct mc_keys *keys,
                               struct mc_request *out)
{
    const char *error = mc_key_error(line->tokens[0], line->dirty & 1, limits);

    _Static_assert(ARGS_MAX <= MC_TOKENS_MAX, "every flag has its token");
    if (error != NULL)
        return error;
    if (line->count > ARGS_MAX)
        return out->verb == MC_mg ? "CLIENT_ERROR options flags are too long"
                                  : "CLIENT_ERROR options flags too long";
    if (keys->cap == 0 && !mc_keys_grow(keys))
        return MC_ERROR_NO_MEMORY;
    keys->items[0] = out->route_key = line->tokens[0];
    out->keys = keys->items;
    out->key_count = 1;
    out->delta = 1; /* ma's default */
    return out->verb == MC_me ? debug_line_parse(line, limits, keys, out)
                              : flags_parse(line, first_flag, keys, out);
}

bool mc_meta_is_silenced(enum mc_verb verb, struct bytes reply_line)
{
    struct bytes code = bytes_first(reply_line, 2);

    if (reply_line.len > 2 && reply_line.data[2] != ' ')
        return false; /* a text that happens to begin so */
    if (verb == MC_mg)
        return MC_BYTES_ARE(code, "EN");
    if (verb == MC_ma && MC_BYTES_ARE(code, "VA"))
        return true;
    return (verb == MC_ms || verb == MC_md || verb == MC_ma) && MC_BYTES_ARE(code, "HD");
}
