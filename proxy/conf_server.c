/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and server lines, read from their ends as twemproxy reads them: a host may contain
 * colons (IPv6), a path may contain blanks.
 *
 *     host:port:weight [name] [slots=0-5460,..] [range=a..m,..] [role=spare]
 *     /path:weight     [name] ...
 */
#include "config.h"

#include "proxy/conf_private.h"

#define KETAMA_PORT    11211
#define PARTS_MAX      4096 /* slot or key ranges of a server */
#define SERVER_FORMAT  "\"hostname:port:weight [name]\""

/* ---- slots and ranges
 * --------------------------------------------------------------------------------- */

/* Calls `add` for each part between commas. */
typedef int (*part_fn)(struct conf_reader *reader, const struct conf_node *node, struct bytes part,
                       struct conf_server *server);

static int each_part(struct conf_reader *reader, const struct conf_node *node, struct bytes list,
                     part_fn add, struct conf_server *server)
{
    uint32_t count = 0;

    for (;;) {
        size_t len = 0;
        int err;

        while (len < list.len && list.data[len] != ',')
            len++;
        if (++count > PARTS_MAX)
            return conf_fail(reader, node->at,
                             "conf: directive \"servers\" has an invalid value; more than %d parts "
                             "on a line",
                             PARTS_MAX);
        err = add(reader, node, bytes_first(list, len), server);
        if (err != 0 || len == list.len)
            return err;
        list = bytes_skip(list, len + 1);
    }
}

static uint32_t count_parts(struct bytes list)
{
    uint32_t count = 1;

    for (size_t i = 0; i < list.len; i++)
        count += list.data[i] == ',';
    return MIN(count, (uint32_t)PARTS_MAX);
}

static int add_slots(struct conf_reader *reader, const struct conf_node *node, struct bytes part,
                     struct conf_server *server)
{
    struct ring_slots *slots = (struct ring_slots *)server->slots + server->slots_count;
    struct bytes first = part, last = part;
    uint32_t from, to;

    if (conf_cut_last(&first, '-', &last) && first.len == 0)
        first = part;
    if (!conf_number(first, &from) || !conf_number(last, &to) || from > to || to >= HASH_SLOT_COUNT)
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid slot range \"%.*s\"; write "
                         "slots=0-5460 or slots=7,9-12, from 0 to 16383",
                         CONF_SHOW(part));
    *slots = (struct ring_slots){.first = (uint16_t)from, .last = (uint16_t)to};
    server->slots_count++;
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes %XX apart; false for a bad one. NUL may be in a key, so it is a length that counts. */
static bool decode_bound(struct conf_reader *reader, struct bytes text, struct bytes *out)
{
    char *copy = conf_alloc(reader->arena, text.len + 1);
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] != '%') {
            copy[len++] = text.data[i];
            continue;
        }
        if (i + 2 >= text.len || hex_digit(text.data[i + 1]) < 0 || hex_digit(text.data[i + 2]) < 0)
            return false;
        copy[len++] = (char)(hex_digit(text.data[i + 1]) << 4 | hex_digit(text.data[i + 2]));
        i += 2;
    }
    *out = bytes_of(copy, len);
    return true;
}

static int add_range(struct conf_reader *reader, const struct conf_node *node, struct bytes part,
                     struct conf_server *server)
{
    struct ring_range *range = (struct ring_range *)server->ranges + server->ranges_count;
    const char *dots = part.len > 0 ? memmem(part.data, part.len, "..", 2) : NULL;

    if (dots == NULL ||
        !decode_bound(reader, bytes_first(part, (size_t)(dots - part.data)), &range->from) ||
        !decode_bound(reader, bytes_skip(part, (size_t)(dots - part.data) + 2), &range->to))
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid key range \"%.*s\"; write "
                         "range=a..m (a belongs to it, m does not; either may be left out; other "
                         "bytes as %%XX)",
                         CONF_SHOW(part));
    server->ranges_count++;
    return 0;
}

static bool starts_with(struct bytes text, const char *prefix)
{
    return bytes_equal(bytes_first(text, strlen(prefix)), bytes_of_string(prefix));
}

/* `*is_one` false: the word is a name, not one of ours. */
static int read_attribute(struct conf_reader *reader, const struct conf_node *node,
                          struct bytes word, struct conf_server *server, bool *is_one)
{
    *is_one = true;
    if (starts_with(word, "slots=") && server->slots == NULL) {
        word = bytes_skip(word, 6);
        server->slots = conf_alloc(reader->arena, count_parts(word) * sizeof(*server->slots));
        return each_part(reader, node, word, add_slots, server);
    }
    if (starts_with(word, "range=") && server->ranges == NULL) {
        word = bytes_skip(word, 6);
        server->ranges = conf_alloc(reader->arena, count_parts(word) * sizeof(*server->ranges));
        return each_part(reader, node, word, add_range, server);
    }
    if (bytes_equal(word, BYTES("role=spare"))) {
        server->is_spare = true;
        return 0;
    }
    if (starts_with(word, "slots=") || starts_with(word, "range=") || starts_with(word, "role="))
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid \"%.*s\"; one slots=, one "
                         "range= or role=spare may follow the name",
                         CONF_SHOW(word));
    *is_one = false;
    return 0;
}

/* Takes our words off the end of the line. */
static int read_attributes(struct conf_reader *reader, const struct conf_node *node,
                           struct bytes *line, struct conf_server *server)
{
    for (;;) {
        struct bytes rest = *line, word;
        bool is_one;
        int err;

        if (!conf_cut_last(&rest, ' ', &word))
            return 0;
        err = read_attribute(reader, node, word, server, &is_one);
        if (err != 0 || !is_one)
            return err;
        *line = conf_trim(rest);
    }
}

/* ---- a line of servers
 * -------------------------------------------------------------------------------- */

struct parts {
    struct bytes name, weight, port, host; /* host: or path */
    bool has_name, has_weight;
};

/* twemproxy's scan from the end: name behind the last blank, weight behind the last colon, port. */
static bool split_line(struct bytes line, bool needs_weight, struct parts *parts)
{
    bool is_path = line.data[0] == '/';
    struct bytes rest = line;

    parts->has_name = conf_cut_last(&rest, ' ', &parts->name);
    parts->has_weight = true;
    if (!needs_weight && !is_path && rest.len > 0) {
        struct bytes host = rest, tail;

        /* Seeds: "host:port" and "[::1]:port" are enough. */
        if (conf_cut_last(&host, ':', &tail) && host.len > 0 &&
            (memchr(host.data, ':', host.len) == NULL || host.data[host.len - 1] == ']'))
            parts->has_weight = false;
    }
    if (parts->has_weight && !conf_cut_last(&rest, ':', &parts->weight))
        return false;
    if (!is_path && !conf_cut_last(&rest, ':', &parts->port))
        return false;
    parts->host = rest;
    /* A colon in a path is one too many for twemproxy. */
    return !is_path || memchr(rest.data, ':', rest.len) == NULL;
}

static int check_parts(struct conf_reader *reader, const struct conf_node *node,
                       const struct parts *parts, struct conf_server *server, bool is_path)
{
    if (parts->has_weight && !conf_number(parts->weight, &server->weight))
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid weight in " SERVER_FORMAT
                         " format string; \"%.*s\" is not a number",
                         CONF_SHOW(parts->weight));
    if (server->weight == 0)
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has a zero weight in " SERVER_FORMAT
                         " format string; write at least 1, or take the line out");
    if (server->weight > RING_WEIGHT_MAX)
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid weight in " SERVER_FORMAT
                         " format string; at most %u",
                         RING_WEIGHT_MAX);
    if (!is_path && !conf_parse_port(parts->port, &server->address.port))
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid port in " SERVER_FORMAT
                         " format string; a port is 1 to 65535");
    if (parts->host.len == 0 || parts->host.len > (is_path ? CONF_UNIX_PATH_MAX : 255) ||
        (!is_path && memchr(parts->host.data, ' ', parts->host.len) != NULL))
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid value; \"%.*s\" is no %s",
                         CONF_SHOW(parts->host), is_path ? "path of a unix socket" : "host name");
    if (parts->has_name && (parts->name.len == 0 || parts->name.len > 255))
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid value; a name has 1 to 255 "
                         "bytes");
    return 0;
}

int conf_read_server(struct conf_reader *reader, const struct conf_node *node, bool needs_weight,
                     struct conf_server *server)
{
    struct conf_arena *arena = reader->arena;
    struct parts parts = {0};
    struct bytes line = node->text, pname;
    bool is_path;
    int err;

    *server = (struct conf_server){.weight = 1, .address.at = node->at};
    if (node->kind != CONF_NODE_SCALAR || line.len == 0)
        return conf_fail(reader, node->at,
                         "conf: directive \"servers\" has an invalid value; each item is one line "
                         "\"hostname:port:weight [name]\"");
    err = read_attributes(reader, node, &line, server);
    if (err != 0)
        return err;
    is_path = line.len > 0 && line.data[0] == '/';
    if (line.len == 0 || !split_line(line, needs_weight, &parts))
        return conf_fail(
            reader, node->at,
            "conf: directive \"servers\" has an invalid " SERVER_FORMAT
            "or \"/path/unix_socket:weight [name]\" format string; \"%.*s\" should look "
            "like 127.0.0.1:6379:1 name",
            CONF_SHOW(line));
    err = check_parts(reader, node, &parts, server, is_path);
    if (err != 0)
        return err;
    pname = parts.has_name ? bytes_first(line, line.len - parts.name.len - 1) : line;
    server->pname = conf_copy(arena, pname);
    server->has_name = parts.has_name;
    server->address.text =
        conf_copy(arena, bytes_first(line, parts.host.len + (is_path ? 0 : 1 + parts.port.len)));
    if (is_path)
        server->address.path = conf_copy(arena, parts.host);
    else
        server->address.host = conf_copy(arena, conf_without_brackets(parts.host));
    /* The label of an unnamed unix socket ends in a colon: twemproxy cuts "host:port" out of the
     * line by lengths, and the port of a path has none. Keys are placed by it, so it stays. */
    if (parts.has_name)
        server->name = conf_copy(arena, parts.name);
    else if (is_path)
        server->name = conf_copy(arena, bytes_first(line, parts.host.len + 1));
    else if (server->address.port == KETAMA_PORT)
        server->name = conf_copy(arena, parts.host);
    else
        server->name = server->address.text;
    return 0;
}

int conf_read_master(struct conf_reader *reader, const struct conf_node *node,
                     struct conf_master *master)
{
    struct bytes name = node->text, weight;

    master->weight = 1;
    if (node->kind != CONF_NODE_SCALAR || name.len == 0)
        return conf_fail(reader, node->at,
                         "conf: directive \"sentinel_master\" has an invalid value; write the name "
                         "that the sentinels monitor, or a list of them");
    if (conf_cut_last(&name, ':', &weight) && (!conf_number(weight, &master->weight) ||
                                          master->weight == 0 || master->weight > RING_WEIGHT_MAX))
        return conf_fail(
            reader, node->at,
            "conf: directive \"sentinel_master\" has an invalid weight in \"name:weight\" "
            "format string; it takes 1 to %u",
            RING_WEIGHT_MAX);
    if (name.len == 0 || name.len > 255 || memchr(name.data, ' ', name.len) != NULL)
        return conf_fail(reader, node->at,
                         "conf: directive \"sentinel_master\" has an invalid value; \"%.*s\" is no "
                         "name of a master",
                         CONF_SHOW(name));
    master->name = conf_copy(reader->arena, name);
    return 0;
}
