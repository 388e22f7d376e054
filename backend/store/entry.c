/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/entry.h"

/* What lies between header and key; returns where the key goes. */
static char *options_compose(struct entry *at, const struct entry_parts *parts)
{
    char *to = at->rest;

    if (parts->expire_ms != 0) {
        memcpy(to, &parts->expire_ms, 8);
        to += 8;
    }
    if ((uint32_t)parts->mc_flags != 0) {
        uint32_t flags = (uint32_t)parts->mc_flags;

        memcpy(to, &flags, 4);
        to += 4;
    }
    if (UNLIKELY(parts->key.len >= ENTRY_KEY_LONG)) {
        uint16_t len = (uint16_t)parts->key.len;

        memcpy(to, &len, 2);
        to += 2;
    }
    return to;
}

void entry_compose(struct entry *at, const struct entry_parts *parts)
{
    char *to;

    ASSERT(parts->type < STORE_TYPE_COUNT && (parts->type != STORE_NONE || parts->is_cold));
    ASSERT(parts->db < STORE_DBS);
    ASSERT(parts->mc_flags <= ENTRY_MC_FLAGS_MAX);
    ASSERT(parts->key.len <= STORE_KEY_MAX);
    ASSERT(!parts->is_cold || parts->object == NULL); /* E1 */
    ASSERT(parts->is_cold || parts->object != NULL || parts->value.len < 1u << ENTRY_FORM_SHIFT);

    at->address = parts->address;
    entry_lsn_set(at, parts->lsn);
    at->type_flags = entry_type_flags(parts);
    at->db_access = (uint8_t)(parts->db | (parts->access & 3) << 4 |
                              (uint8_t)(parts->mc_flags >> 32) << 6);
    at->key_len_ = (uint8_t)MIN(parts->key.len, ENTRY_KEY_LONG);
    entry_value_len_set(at, parts->object != NULL ? 0
                            : parts->is_cold      ? parts->value.len
                                                  : parts->value.len | (size_t)parts->form << ENTRY_FORM_SHIFT);

    to = options_compose(at, parts);
    bytes_copy_short(to, parts->key.data, parts->key.len);
    to += parts->key.len;
    if (parts->is_cold)
        return;
    if (parts->object != NULL)
        memcpy(to, &parts->object, sizeof(parts->object));
    else if (parts->value.len > 0)
        memcpy(to, parts->value.data, parts->value.len);
}

void entry_parts_of(const struct entry *e, struct entry_parts *out)
{
    *out = (struct entry_parts){
        .address = e->address,
        .lsn = entry_lsn(e),
        .expire_ms = entry_expire_ms(e),
        .mc_flags = entry_mc_flags(e),
        .type = (uint8_t)entry_type(e),
        .db = entry_db(e),
        .is_cold = entry_is_cold(e),
        .is_main = (e->type_flags & ENTRY_MAIN) != 0,
        .access = entry_access(e),
        .form = (uint8_t)entry_form(e),
        .key = entry_key(e),
    };
    if (entry_is_cold(e))
        out->value = bytes_of(NULL, entry_value_len(e));
    else if (entry_is_object(e))
        out->object = entry_object(e);
    else
        out->value = entry_inline_value(e);
}
