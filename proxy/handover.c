/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/handover.h"
#include "common/proto/proto.h"

#include <endian.h>

#define HANDOVER_MAGIC 0x314f4857u /* "WHO1" */

enum { FLAG_AUTHENTICATED = 1, FLAG_SESSION = 2 };

/* The header as it lies in the blob; every field little endian. */
struct handover_header {
    uint32_t magic;
    uint16_t version;
    uint8_t dialect, db;
    uint8_t flags, zero;
    uint16_t session_len;
    uint32_t input_len;
    uint64_t swallow, client_id;
};
_Static_assert(sizeof(struct handover_header) == HANDOVER_HEADER_SIZE, "no padding");

int handover_blob_encode(const struct handover *handover, struct buffer *out)
{
    struct handover_header header = {
        .magic = htole32(HANDOVER_MAGIC),
        .version = htole16(HANDOVER_VERSION),
        .dialect = handover->dialect,
        .db = handover->db,
        .flags = (uint8_t)((handover->is_authenticated ? FLAG_AUTHENTICATED : 0) |
                           (handover->session.len > 0 ? FLAG_SESSION : 0)),
        .session_len = htole16((uint16_t)handover->session.len),
        .input_len = htole32((uint32_t)handover->input.len),
        .swallow = htole64(handover->swallow),
        .client_id = htole64(handover->client_id),
    };

    if (handover->input.len > HANDOVER_INPUT_MAX || handover->session.len > HANDOVER_SESSION_MAX ||
        sizeof(header) + handover->session.len + handover->input.len > HANDOVER_BLOB_MAX)
        return ERR_FULL;
    buffer_append(out, &header, sizeof(header));
    buffer_append(out, handover->session.data, handover->session.len);
    buffer_append(out, handover->input.data, handover->input.len);
    return out->failed ? -ENOMEM : 0;
}

int handover_blob_decode(struct bytes blob, struct handover *out)
{
    struct handover_header header;
    size_t session_len, input_len;

    if (blob.len < sizeof(header))
        return ERR_CORRUPT;
    memcpy(&header, blob.data, sizeof(header));
    session_len = le16toh(header.session_len);
    input_len = le32toh(header.input_len);
    if (le32toh(header.magic) != HANDOVER_MAGIC || le16toh(header.version) != HANDOVER_VERSION ||
        header.zero != 0 || header.dialect >= DIALECT_COUNT ||
        (header.flags & ~(FLAG_AUTHENTICATED | FLAG_SESSION)) != 0 ||
        input_len > HANDOVER_INPUT_MAX || session_len > HANDOVER_SESSION_MAX ||
        blob.len != sizeof(header) + session_len + input_len ||
        ((header.flags & FLAG_SESSION) != 0) != (session_len > 0))
        return ERR_CORRUPT;
    out->dialect = header.dialect;
    out->db = header.db;
    out->is_authenticated = (header.flags & FLAG_AUTHENTICATED) != 0;
    out->swallow = le64toh(header.swallow);
    out->client_id = le64toh(header.client_id);
    out->session = bytes_first(bytes_skip(blob, sizeof(header)), session_len);
    out->input = bytes_skip(blob, sizeof(header) + session_len);
    return 0;
}
