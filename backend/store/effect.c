/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/effect.h"

/* Numbers are kept little endian; so are the machines that this is built for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are written as memory lies");

#define VARINT_MAX 10u

void varint_append(struct buffer *out, uint64_t number)
{
    char *to = buffer_reserve(out, VARINT_MAX);
    size_t len = 0;

    if (to == NULL)
        return;
    while (number >= 0x80) {
        to[len++] = (char)(number | 0x80);
        number >>= 7;
    }
    to[len++] = (char)number;
    out->len += len;
}

/* Takes only the shortest form: equal things must have equal bytes. */
bool varint_read(struct bytes *cursor, uint64_t *number)
{
    uint64_t value = 0;
    size_t len = MIN(cursor->len, VARINT_MAX);

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)cursor->data[i];

        if (i == VARINT_MAX - 1 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            if (byte == 0 && i > 0)
                return false;
            *cursor = bytes_skip(*cursor, i + 1);
            *number = value;
            return true;
        }
    }
    return false;
}

void varint_append_bytes(struct buffer *out, struct bytes data)
{
    varint_append(out, data.len);
    buffer_append(out, data.data, data.len);
}

bool varint_read_bytes(struct bytes *cursor, struct bytes *data)
{
    struct bytes rest = *cursor;
    uint64_t len;

    if (!varint_read(&rest, &len) || len > rest.len)
        return false;
    *data = bytes_first(rest, len);
    *cursor = bytes_skip(rest, len);
    return true;
}

void effect_begin(struct buffer *out, uint8_t code, uint32_t count)
{
    ASSERT(code != 0);
    ASSERT(count <= EFFECT_ARGUMENTS_MAX);
    buffer_append(out, &code, 1);
    varint_append(out, count);
}

void effect_bytes(struct buffer *out, struct bytes argument)
{
    varint_append_bytes(out, argument);
}

void effect_u64(struct buffer *out, uint64_t number)
{
    effect_bytes(out, bytes_of(&number, sizeof(number)));
}

void effect_double(struct buffer *out, double number)
{
    effect_bytes(out, bytes_of(&number, sizeof(number)));
}

void effect_reader_init(struct effect_reader *reader, struct bytes ops)
{
    *reader = (struct effect_reader){.rest = ops};
}

static bool reader_fail(struct effect_reader *reader)
{
    reader->is_bad = true;
    reader->arguments_left = 0;
    return false;
}

bool effect_next(struct effect_reader *reader, uint8_t *code, uint32_t *argument_count)
{
    struct bytes skipped;
    uint64_t count;

    while (reader->arguments_left > 0)
        if (!effect_read_bytes(reader, &skipped))
            return false;
    if (reader->is_bad || reader->rest.len == 0)
        return false;
    *code = (uint8_t)reader->rest.data[0];
    reader->rest = bytes_skip(reader->rest, 1);
    /* An argument takes at least its length's byte: so a count read here never asks for more room than the
     * operations themselves take. */
    if (*code == 0 || !varint_read(&reader->rest, &count) || count > EFFECT_ARGUMENTS_MAX ||
        count > reader->rest.len)
        return reader_fail(reader);
    *argument_count = reader->arguments_left = (uint32_t)count;
    return true;
}

bool effect_read_bytes(struct effect_reader *reader, struct bytes *argument)
{
    if (reader->is_bad || reader->arguments_left == 0 ||
        !varint_read_bytes(&reader->rest, argument))
        return reader_fail(reader);
    reader->arguments_left--;
    return true;
}

static bool read_eight(struct effect_reader *reader, void *to)
{
    struct bytes argument;

    if (!effect_read_bytes(reader, &argument))
        return false;
    if (argument.len != 8)
        return reader_fail(reader);
    memcpy(to, argument.data, 8);
    return true;
}

bool effect_read_u64(struct effect_reader *reader, uint64_t *number)
{
    return read_eight(reader, number);
}

bool effect_read_double(struct effect_reader *reader, double *number)
{
    return read_eight(reader, number);
}
