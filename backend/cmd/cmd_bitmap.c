/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/settings.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/cmd/string_edit.h"
#include "backend/types/bits.h"
#include "common/base/mem.h"

#define ERROR_BIT_OFFSET "ERR bit offset is not an integer or out of range"
#define ERROR_BIT        "ERR bit is not an integer or out of range"

/* "100", and for BITFIELD "#3": the third field of that width (0: no such form). */
static bool arg_bit_offset(struct cmd *c, uint32_t i, unsigned width, uint64_t *out)
{
    struct bytes text = c->argv[i];
    bool is_index = width > 0 && text.len > 0 && text.data[0] == '#';
    int64_t offset;

    if (!bytes_to_i64(is_index ? bytes_skip(text, 1) : text, &offset) ||
        (is_index && __builtin_mul_overflow(offset, (int64_t)width, &offset)) || offset < 0 ||
        (uint64_t)offset >> 3 >= MIN(c->engine->settings->bulk_max, (uint64_t)STORE_VALUE_MAX)) {
        reply_error(c, ERROR_BIT_OFFSET);
        return false;
    }
    *out = (uint64_t)offset;
    return true;
}

void cmd_setbit(struct cmd *c)
{
    struct string_edit edit;
    struct store_key key;
    uint64_t at;
    int64_t bit;
    bool old;

    if (!arg_bit_offset(c, 2, 0, &at) || !arg_i64_range(c, 3, 0, 1, &bit, ERROR_BIT) ||
        !key_write(c, c->argv[1], STORE_STRING, &key) || !string_edit_begin(&edit, c, &key, (size_t)(at >> 3) + 1))
        return;
    old = bits_get(bytes_of(edit.data, edit.len), at);
    if (old != (bit != 0)) {
        char byte = (char)((unsigned char)edit.data[at >> 3] ^ (0x80u >> (at & 7)));

        string_edit_write(&edit, (size_t)(at >> 3), bytes_of(&byte, 1));
    }
    if (!string_edit_end(&edit))
        return;
    if (edit.is_dirty)
        notify(c, NOTIFY_STRING, "setbit", key.name);
    reply_integer(c, old);
}

void cmd_getbit(struct cmd *c)
{
    struct store_key key;
    uint64_t at;

    if (arg_bit_offset(c, 2, 0, &at) && key_read(c, c->argv[1], STORE_STRING, &key))
        reply_integer(c, bits_get(key_string(&key), at));
}

/* ---- ranges ---- */

/* "bit" or "byte". */
static bool arg_bit_unit(struct cmd *c, uint32_t i, bool *in_bits)
{
    *in_bits = arg_is(c, i, "bit");
    if (*in_bits || arg_is(c, i, "byte"))
        return true;
    reply_error(c, ERROR_SYNTAX);
    return false;
}

/* From Redis's start and end, which may be negative, in bytes or bits, to the first and last bit. False: empty. */
static bool bit_range(int64_t start, int64_t end, bool in_bits, size_t len, uint64_t *first, uint64_t *last)
{
    int64_t count = (int64_t)len * (in_bits ? 8 : 1);

    if (start < 0)
        start = MAX(start + count, (int64_t)0);
    if (end < 0)
        end = MAX(end + count, (int64_t)0);
    end = MIN(end, count - 1);
    if (start > end)
        return false;
    *first = (uint64_t)start * (in_bits ? 1 : 8);
    *last = in_bits ? (uint64_t)end : (uint64_t)end * 8 + 7;
    return true;
}

void cmd_bitcount(struct cmd *c)
{
    struct store_key key;
    struct bytes value;
    int64_t start = 0, end = -1;
    uint64_t first, last;
    bool in_bits = false;

    if (!key_read(c, c->argv[1], STORE_STRING, &key))
        return;
    if (key.entry == NULL) {
        reply_integer(c, 0);
        return;
    }
    if (c->argc == 3 || c->argc > 5) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    value = store_string(key.entry);
    if (c->argc > 2) {
        if (!arg_i64(c, 2, &start) || !arg_i64(c, 3, &end))
            return;
        if (start < 0 && end < 0 && start > end) {
            reply_integer(c, 0);
            return;
        }
        if (c->argc == 5 && !arg_bit_unit(c, 4, &in_bits))
            return;
    }
    if (!bit_range(start, end, in_bits, value.len, &first, &last))
        reply_integer(c, 0);
    else
        reply_integer(c, (int64_t)bits_count_range(value, first, last));
}

void cmd_bitpos(struct cmd *c)
{
    struct store_key key;
    struct bytes value;
    int64_t bit, start = 0, end = -1, at;
    uint64_t first, last;
    bool in_bits = false;

    if (!arg_i64(c, 2, &bit))
        return;
    if (bit != 0 && bit != 1) {
        reply_error(c, "ERR The bit argument must be 1 or 0.");
        return;
    }
    if (!key_read(c, c->argv[1], STORE_STRING, &key))
        return;
    if (key.entry == NULL) {
        reply_integer(c, bit ? -1 : 0);
        return;
    }
    if (c->argc > 6) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    value = store_string(key.entry);
    if (c->argc > 3 && (!arg_i64(c, 3, &start) || (c->argc == 6 && !arg_bit_unit(c, 5, &in_bits)) ||
                        (c->argc > 4 && !arg_i64(c, 4, &end))))
        return;
    if (!bit_range(start, end, in_bits, value.len, &first, &last)) {
        reply_integer(c, -1);
        return;
    }
    at = bits_find(value, first, last, bit != 0);
    /* Without an end, the zeros behind the string count. */
    if (at < 0 && bit == 0 && c->argc <= 4)
        at = (int64_t)value.len * 8;
    reply_integer(c, at);
}

/* ---- BITOP ---- */

static bool arg_bit_operation(struct cmd *c, uint32_t i, enum bits_operation *out)
{
    static const char *const names[] = {
        [BITS_AND] = "and", [BITS_OR] = "or", [BITS_XOR] = "xor", [BITS_NOT] = "not"};

    for (size_t n = 0; n < ARRAY_COUNT(names); n++)
        if (arg_is(c, i, names[n])) {
            *out = (enum bits_operation)n;
            return true;
        }
    reply_error(c, ERROR_SYNTAX);
    return false;
}

/* The strings to combine, from argument 3 on, and the length of the longest. */
static bool bitop_sources(struct cmd *c, struct bytes *strings, size_t *len)
{
    *len = 0;
    for (uint32_t i = 3; i < c->argc; i++) {
        struct store_key key;

        if (!key_read(c, c->argv[i], STORE_STRING, &key))
            return false;
        strings[i - 3] = key_string(&key);
        *len = MAX(*len, strings[i - 3].len);
    }
    return true;
}

static void bitop_store(struct cmd *c, const unsigned char *out, size_t len)
{
    struct store_attributes attributes = {.form = FORM_RAW};
    struct store_key target;

    if (!key_write(c, c->argv[2], STORE_NONE, &target))
        return;
    if (len > 0) {
        if (!cmd_stored(c, store_put_string(c->store, &target, bytes_of(out, len), &attributes)))
            return;
        notify(c, NOTIFY_STRING, "set", target.name);
    } else if (target.entry != NULL) {
        if (!cmd_stored(c, store_delete(c->store, &target)))
            return;
        notify(c, NOTIFY_GENERIC, "del", target.name);
    }
    reply_integer(c, (int64_t)len);
}

void cmd_bitop(struct cmd *c)
{
    enum bits_operation operation;
    struct bytes *strings;
    unsigned char *out = NULL;
    size_t len;

    if (!arg_bit_operation(c, 1, &operation))
        return;
    if (operation == BITS_NOT && c->argc != 4) {
        reply_error(c, "ERR BITOP NOT must be called with a single source key.");
        return;
    }
    strings = mem_alloc((c->argc - 3) * sizeof(*strings));
    if (strings == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    if (!bitop_sources(c, strings, &len))
        goto out;
    out = mem_alloc(MAX(len, (size_t)1));
    if (out == NULL) {
        cmd_out_of_memory(c);
        goto out;
    }
    bits_combine(operation, strings, c->argc - 3, out, len);
    bitop_store(c, out, len);
out:
    mem_free(strings);
    mem_free(out);
}

/* ---- BITFIELD ---- */

enum field_code { FIELD_GET, FIELD_SET, FIELD_INCREMENT };

struct field_op {
    enum field_code code;
    enum bits_overflow overflow;
    bool is_signed;
    unsigned width;
    uint64_t at;
    int64_t argument;
};

struct fields {
    struct field_op *ops; /* owns */
    size_t count;
    uint64_t bits_written; /* a string must have so many; 0: nothing is written */
};

static bool arg_field_type(struct cmd *c, uint32_t i, struct field_op *op)
{
    struct bytes text = c->argv[i];
    int64_t width = 0;

    op->is_signed = text.len > 0 && text.data[0] == 'i';
    if ((!op->is_signed && (text.len == 0 || text.data[0] != 'u')) || !bytes_to_i64(bytes_skip(text, 1), &width) ||
        width < 1 || width > (op->is_signed ? 64 : 63)) {
        reply_error(c, "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported "
                       "but i64 is.");
        return false;
    }
    op->width = (unsigned)width;
    return true;
}

static bool arg_field_overflow(struct cmd *c, uint32_t i, enum bits_overflow *out)
{
    if (arg_is(c, i, "wrap")) {
        *out = BITS_WRAP;
    } else if (arg_is(c, i, "sat")) {
        *out = BITS_SATURATE;
    } else if (arg_is(c, i, "fail")) {
        *out = BITS_FAIL;
    } else {
        reply_error(c, "ERR Invalid OVERFLOW type specified");
        return false;
    }
    return true;
}

static bool field_op_parse(struct cmd *c, uint32_t i, struct field_op *op)
{
    return arg_field_type(c, i + 1, op) && arg_bit_offset(c, i + 2, op->width, &op->at) &&
           (op->code == FIELD_GET || arg_i64(c, i + 3, &op->argument));
}

static bool fields_parse(struct cmd *c, struct fields *fields)
{
    enum bits_overflow overflow = BITS_WRAP;

    for (uint32_t i = 2; i < c->argc;) {
        uint32_t left = c->argc - i - 1;
        struct field_op op = {.overflow = overflow};

        if (arg_is(c, i, "overflow") && left >= 1) {
            if (!arg_field_overflow(c, i + 1, &overflow))
                return false;
            i += 2;
            continue;
        }
        if (arg_is(c, i, "get") && left >= 2) {
            op.code = FIELD_GET;
        } else if (arg_is(c, i, "set") && left >= 3) {
            op.code = FIELD_SET;
        } else if (arg_is(c, i, "incrby") && left >= 3) {
            op.code = FIELD_INCREMENT;
        } else {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
        if (!field_op_parse(c, i, &op))
            return false;
        if (op.code != FIELD_GET)
            fields->bits_written = MAX(fields->bits_written, op.at + op.width);
        fields->ops[fields->count++] = op;
        i += op.code == FIELD_GET ? 3 : 4;
    }
    return true;
}

static int64_t field_value(const struct field_op *op, uint64_t field)
{
    return op->is_signed ? bits_field_signed(field, op->width) : (int64_t)field;
}

/* What a SET or INCRBY makes of the field. False: it would not fit, and is to fail. */
static bool field_changed(const struct field_op *op, uint64_t old, uint64_t *now)
{
    bool is_set = op->code == FIELD_SET, fits;

    if (op->is_signed) {
        int64_t value;

        fits = bits_add_signed(is_set ? op->argument : bits_field_signed(old, op->width),
                               is_set ? 0 : op->argument, op->width, op->overflow, &value);
        *now = (uint64_t)value;
    } else {
        fits = bits_add_unsigned(is_set ? (uint64_t)op->argument : old, is_set ? 0 : op->argument, op->width,
                                 op->overflow, now);
    }
    return fits || op->overflow != BITS_FAIL;
}

/* False: it would overflow, and is left as it is. */
static bool field_op_write(struct cmd *c, const struct field_op *op, struct string_edit *edit)
{
    struct bytes data = bytes_of(edit->data, edit->len);
    size_t first = (size_t)(op->at >> 3), last = (size_t)((op->at + op->width - 1) >> 3);
    uint64_t old = bits_field_get(data, op->at, op->width), now;
    unsigned char bytes[9];

    if (!field_changed(op, old, &now)) {
        reply_null(c);
        return false;
    }
    memcpy(bytes, edit->data + first, last - first + 1);
    bits_field_set(bytes, op->at & 7, op->width, now);
    if (memcmp(bytes, edit->data + first, last - first + 1) != 0)
        string_edit_write(edit, first, bytes_of(bytes, last - first + 1));
    reply_integer(c, op->code == FIELD_SET ? field_value(op, old) : (int64_t)now);
    return true;
}

static void fields_read(struct cmd *c, const struct fields *fields)
{
    struct store_key key;

    if (!key_read(c, c->argv[1], STORE_STRING, &key))
        return;
    reply_array(c, fields->count);
    for (size_t i = 0; i < fields->count; i++)
        reply_integer(c, field_value(&fields->ops[i], bits_field_get(key_string(&key), fields->ops[i].at,
                                                                     fields->ops[i].width)));
}

static void fields_write(struct cmd *c, const struct fields *fields)
{
    struct string_edit edit;
    struct store_key key;
    size_t len = (size_t)((fields->bits_written + 7) >> 3);
    bool any_written = false;

    if (!key_write(c, c->argv[1], STORE_STRING, &key) || !string_size_fits(c, 0, len) ||
        !string_edit_begin(&edit, c, &key, len))
        return;
    reply_array(c, fields->count);
    for (size_t i = 0; i < fields->count; i++) {
        const struct field_op *op = &fields->ops[i];

        if (op->code == FIELD_GET)
            reply_integer(c, field_value(op, bits_field_get(bytes_of(edit.data, edit.len), op->at, op->width)));
        else
            any_written |= field_op_write(c, op, &edit);
    }
    /* As Redis: a string that only grew is not told of. */
    if (string_edit_end(&edit) && edit.is_dirty && any_written)
        notify(c, NOTIFY_STRING, "setbit", key.name);
}

static void bitfield(struct cmd *c, bool is_read_only)
{
    struct fields fields = {.ops = mem_alloc(c->argc * sizeof(struct field_op))};

    if (fields.ops == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    if (fields_parse(c, &fields)) {
        if (fields.bits_written == 0)
            fields_read(c, &fields);
        else if (is_read_only)
            reply_error(c, "ERR BITFIELD_RO only supports the GET subcommand");
        else
            fields_write(c, &fields);
    }
    mem_free(fields.ops);
}

void cmd_bitfield(struct cmd *c)
{
    bitfield(c, false);
}

void cmd_bitfield_ro(struct cmd *c)
{
    bitfield(c, true);
}
