/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/node_private.h"

#include "backend/cmd/move.h"

#include "common/base/mem.h"

#include <endian.h>

#define MOVE_MAGIC   0x314d4257u /* "WBM1" */
#define MOVE_VERSION 1u
#define COMMANDS_MAX (1u << 30)

enum { FLAG_AUTHENTICATED = 1, FLAG_NO_EVICT = 2, FLAG_NO_TOUCH = 4, FLAGS_ALL = 7 };

struct move_head {
    uint32_t magic;
    uint16_t version;
    uint8_t protocol, resp, db, reply_mode, flags, move_flags;
    uint32_t watched_existing, name_len, lib_name_len, lib_version_len, commands_len;
    uint64_t output_len, input_len, id, created_ms, swallow;
};
_Static_assert(sizeof(struct move_head) == 72, "no padding");

static struct bytes text_of(const char *text)
{
    return text != NULL ? bytes_of_string(text) : BYTES_EMPTY;
}

static void output_append(const struct outbuf *from, struct buffer *out)
{
    for (const struct chunk *chunk = from->first; chunk != NULL; chunk = chunk->next)
        buffer_append(out, chunk_bytes(chunk), chunk->end - chunk->start);
}

void client_move_encode(const struct session *session, uint64_t swallow, struct bytes input, struct buffer *out)
{
    struct bytes name = text_of(session->name), lib_name = text_of(session->lib_name);
    struct bytes lib_version = text_of(session->lib_version);
    struct buffer commands = {0};
    struct move_head head = {
        .magic = htole32(MOVE_MAGIC),
        .version = htole16(MOVE_VERSION),
        .protocol = session->protocol,
        .resp = session->resp,
        .db = session->db,
        .reply_mode = session->reply_mode,
        .flags = (uint8_t)((session->is_authenticated ? FLAG_AUTHENTICATED : 0) |
                           (session->no_evict ? FLAG_NO_EVICT : 0) | (session->no_touch ? FLAG_NO_TOUCH : 0)),
        .move_flags = move_flags(session),
        .watched_existing = htole32(move_watched_existing(session)),
        .name_len = htole32((uint32_t)name.len),
        .lib_name_len = htole32((uint32_t)lib_name.len),
        .lib_version_len = htole32((uint32_t)lib_version.len),
        .output_len = htole64(session->out.len),
        .input_len = htole64(input.len),
        .id = htole64(session->id),
        .created_ms = htole64(session->created_ms),
        .swallow = htole64(swallow),
    };

    move_pack(session, &commands);
    head.commands_len = htole32((uint32_t)commands.len);
    buffer_append(out, &head, sizeof(head));
    buffer_append(out, name.data, name.len);
    buffer_append(out, lib_name.data, lib_name.len);
    buffer_append(out, lib_version.data, lib_version.len);
    buffer_append(out, commands.data, commands.len);
    output_append(&session->out, out);
    buffer_append(out, input.data, input.len);
    /* Half a state is none: an empty one is refused at the other end. */
    if (commands.failed || commands.len > COMMANDS_MAX || out->failed)
        buffer_deinit(out);
    buffer_deinit(&commands);
}

static struct bytes take(struct bytes *from, size_t len)
{
    struct bytes taken = bytes_first(*from, len);

    *from = bytes_skip(*from, taken.len);
    return taken;
}

bool client_move_decode(struct bytes state, struct client_move *out)
{
    struct move_head head;
    struct bytes rest;
    uint64_t total;

    if (state.len < sizeof(head))
        return false;
    memcpy(&head, state.data, sizeof(head));
    rest = bytes_skip(state, sizeof(head));
    total = (uint64_t)le32toh(head.name_len) + le32toh(head.lib_name_len) + le32toh(head.lib_version_len) +
            le32toh(head.commands_len);
    if (le32toh(head.magic) != MOVE_MAGIC || le16toh(head.version) != MOVE_VERSION ||
        head.protocol > SESSION_MC_BINARY || head.resp < 2 || head.resp > 3 || head.db >= STORE_DBS ||
        head.reply_mode > SESSION_REPLY_SKIP_NEXT || (head.flags & ~FLAGS_ALL) != 0 ||
        (head.move_flags & ~(MOVE_SPOILED | MOVE_DIRTY)) != 0 || total > rest.len ||
        le64toh(head.output_len) > rest.len - total ||
        le64toh(head.input_len) != rest.len - total - le64toh(head.output_len))
        return false;
    *out = (struct client_move){.protocol = head.protocol,
                                .resp = head.resp,
                                .db = head.db,
                                .reply_mode = head.reply_mode,
                                .flags = head.flags,
                                .move_flags = head.move_flags,
                                .watched_existing = le32toh(head.watched_existing),
                                .id = le64toh(head.id),
                                .created_ms = le64toh(head.created_ms),
                                .swallow = le64toh(head.swallow)};
    out->name = take(&rest, le32toh(head.name_len));
    out->lib_name = take(&rest, le32toh(head.lib_name_len));
    out->lib_version = take(&rest, le32toh(head.lib_version_len));
    out->commands = take(&rest, le32toh(head.commands_len));
    out->output = take(&rest, le64toh(head.output_len));
    out->input = rest;
    return true;
}

static bool text_set(char **to, struct bytes text)
{
    if (text.len == 0)
        return true;
    *to = mem_alloc(text.len + 1);
    if (*to == NULL)
        return false;
    memcpy(*to, text.data, text.len);
    (*to)[text.len] = '\0';
    return true;
}

bool client_move_restore(struct session *session, const struct client_move *move)
{
    session->protocol = move->protocol;
    session->resp = move->resp;
    session->is_authenticated = (move->flags & FLAG_AUTHENTICATED) != 0;
    session->no_evict = (move->flags & FLAG_NO_EVICT) != 0;
    session->no_touch = (move->flags & FLAG_NO_TOUCH) != 0;
    session->id = move->id;
    session->created_ms = move->created_ms;
    session->engine->session_id_next = MAX(session->engine->session_id_next, move->id);
    return text_set(&session->name, move->name) && text_set(&session->lib_name, move->lib_name) &&
           text_set(&session->lib_version, move->lib_version);
}

bool client_move_finish(struct session *session, const struct client_move *move)
{
    session->db = move->db;
    session->reply_mode = move->reply_mode;
    return move_flags_set(session, move->move_flags, move->watched_existing);
}
