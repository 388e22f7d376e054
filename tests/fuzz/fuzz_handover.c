/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one worker passes to another, maybe of another version, and what a new binary inherits.
 *
 * The first byte chooses. Checked: what decodes lies within the packet and adds up; a line that parses
 * prints as a line that parses to the same.
 */
#include "nginx-style-master/private.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_packet(struct bytes packet)
{
    struct handover handover;

    if (handover_decode(packet, &handover) != 0)
        return;
    ASSERT(handover.name.data == packet.data + HANDOVER_HEAD_SIZE);
    ASSERT(handover.name.len <= HANDOVER_NAME_MAX);
    ASSERT(handover.blob.len <= WORKER_PASS_BLOB_MAX);
    ASSERT(handover.blob.data + handover.blob.len == packet.data + packet.len);
}

static void try_line(struct bytes line)
{
    struct inherit_entry entry, again;
    char text[INHERIT_TEXT_MAX + 64];
    size_t len;

    if (inherit_parse_line(line, &entry) != 0 || entry.kind == INHERIT_KIND_MAX_)
        return;
    len = inherit_line(&entry, text, sizeof(text));
    ASSERT(len > 0 && text[len - 1] == '\n');
    ASSERT(inherit_parse_line(bytes_of(text, len - 1), &again) == 0);
    ASSERT(again.kind == entry.kind && again.fd == entry.fd);
    ASSERT(strcmp(again.text, entry.text) == 0);
}

static void try_list(struct bytes list)
{
    static char error[MASTER_ERROR_SIZE];
    struct inherit inherit;

    if (inherit_parse(list, &inherit, error) == 0)
        inherit_free(&inherit, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes rest;

    if (size == 0)
        return 0;
    rest = bytes_of(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        try_packet(rest);
        break;
    case 1:
        try_line(rest);
        break;
    default:
        try_list(rest);
        break;
    }
    return 0;
}
