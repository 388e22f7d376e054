/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses, read from their ends as twemproxy reads them: a host may contain colons (IPv6), a path may
 * contain blanks.
 */
#include "config.h"

#include "common/conf/reader.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/un.h>

_Static_assert(CONF_UNIX_PATH_MAX == sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, "the system's");

bool conf_cut_last(struct bytes *text, char c, struct bytes *tail)
{
    const char *at = text->len > 0 ? memrchr(text->data, c, text->len) : NULL;

    if (at == NULL)
        return false;
    *tail = bytes_skip(*text, (size_t)(at - text->data) + 1);
    text->len = (size_t)(at - text->data);
    return true;
}

struct bytes conf_trim(struct bytes text)
{
    while (text.len > 0 && text.data[0] == ' ')
        text = bytes_skip(text, 1);
    while (text.len > 0 && text.data[text.len - 1] == ' ')
        text.len--;
    return text;
}

struct bytes conf_without_brackets(struct bytes host)
{
    if (host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']')
        return bytes_of(host.data + 1, host.len - 2);
    return host;
}

bool conf_parse_port(struct bytes text, uint16_t *out)
{
    uint32_t port;

    if (!conf_number(text, &port) || port < 1 || port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

bool conf_address_is_local(const struct conf_address *address)
{
    const char *host = address->host;

    return address->path != NULL ||
           (host != NULL && (strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
                             strcmp(host, "localhost") == 0));
}

/* ---- listen -------------------------------------------------------------------------------------- */

static int read_listen_path(struct conf_reader *reader, const struct conf_item *item,
                            struct bytes text, struct conf_address *address)
{
    struct bytes mode;
    uint32_t value = 0;

    if (conf_cut_last(&text, ' ', &mode)) {
        bool is_octal = mode.len > 0 && mode.len <= 4;

        for (size_t i = 0; is_octal && i < mode.len; i++) {
            is_octal = mode.data[i] >= '0' && mode.data[i] <= '7';
            value = value * 8 + (uint32_t)(mode.data[i] - '0');
        }
        if (!is_octal || value > 0777)
            return conf_fail(reader, item->value->at,
                             "conf: directive \"%s\" has an invalid file permission in "
                             "\"socket_path permission\" format string; write three octal digits "
                             "(0660) behind the path",
                             item->name);
    }
    text = conf_trim(text);
    if (text.len > CONF_UNIX_PATH_MAX)
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" has an invalid value; the path of a unix socket has "
            "at most %u bytes",
            item->name, CONF_UNIX_PATH_MAX);
    address->path = conf_copy(reader->arena, text);
    address->mode = (mode_t)value;
    return 0;
}

/* "::1", "fe80::1%eth0" */
static bool is_ipv6(struct bytes host)
{
    const char *zone = memchr(host.data, '%', host.len);
    struct in6_addr addr;
    char text[INET6_ADDRSTRLEN];

    return (size_t)snprintf(text, sizeof(text), "%.*s", (int)(zone != NULL ? (size_t)(zone - host.data) : host.len),
                            host.data) < sizeof(text) && inet_pton(AF_INET6, text, &addr) == 1;
}

int conf_set_listen(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct conf_address *address = (struct conf_address *)((char *)target + item->key->offset);
    struct bytes text, port;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    address->text = conf_copy(reader->arena, text);
    address->at = item->value->at;
    if (text.data[0] == '/')
        return read_listen_path(reader, item, text, address);
    if (!conf_cut_last(&text, ':', &port))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid \"hostname:port\" format string; "
                         "write 127.0.0.1:22121, or the path of a unix socket",
                         item->name);
    if (!conf_parse_port(port, &address->port))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid port in \"hostname:port\" format "
                         "string; a port is 1 to 65535",
                         item->name);
    text = conf_without_brackets(text);
    if (bytes_equal(text, BYTES("*")))
        text = BYTES_EMPTY;
    if (text.len > 255 || (text.len > 0 && memchr(text.data, ' ', text.len) != NULL))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; \"%.*s\" is no host name",
                         item->name, CONF_SHOW(text));
    if (text.len > 0 && memchr(text.data, ':', text.len) != NULL && !is_ipv6(text))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; \"%.*s\" is no IPv6 address, and no other host has a colon",
                         item->name, CONF_SHOW(text));
    address->host = conf_copy(reader->arena, text);
    return 0;
}
