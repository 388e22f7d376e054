/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLIENT: what a connection says and asks about itself.
 */
#include "proxy/redis_local.h"

#define CLIENT_LIST_MAX 10000

static void client_line(const struct client *client, struct buffer *out)
{
    const struct session *session = client->session;
    uint64_t now_s = io_now_ms(client->pool->proxy->io) / 1000;
    char peer[IO_ADDR_TEXT_MAX], local[IO_ADDR_TEXT_MAX];
    struct io_addr addr;

    io_stream_peer(&client->stream, &addr);
    io_addr_text(&addr, peer);
    io_stream_local(&client->stream, &addr);
    io_addr_text(&addr, local);
    buffer_append_format(out, "id=%llu addr=%s laddr=%s fd=%d name=",
                         (unsigned long long)client->id, peer, local, client->stream.fd);
    if (session != NULL)
        buffer_append(out, session->name.data, session->name.len);
    buffer_append_format(out, " age=%llu idle=%llu flags=%s db=%u sub=%u psub=%u ssub=%u multi=%d qbuf=%u qbuf-free=0 "
                              "argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=%zu tot-mem=%zu events=r "
                              "cmd=NULL user=default redir=-1 resp=%d lib-name=",
                         (unsigned long long)(now_s - client->last_active_s), /* no one keeps the start */
                         (unsigned long long)(now_s - client->last_active_s),
                         session == NULL           ? "N"
                         : session->is_in_multi    ? "x"
                         : session->is_blocked     ? "b"
                         : session->link_count > 0 ? "P"
                                                   : "N",
                         client->db, session == NULL ? 0 : session->channels.count,
                         session == NULL ? 0 : session->patterns.count,
                         session == NULL ? 0 : session->shard_channels.count,
                         session != NULL && session->is_in_multi ? (int)session->queued_count : -1,
                         client->stream.rest_len_, client->out.len + client->held_bytes,
                         sizeof(*client) + client->stream.rest_len_ + client->out.len + client->held_bytes,
                         client->dialect == DIALECT_RESP3 ? 3 : 2);
    if (session != NULL)
        buffer_append(out, session->lib_name.data, session->lib_name.len);
    buffer_append_string(out, " lib-ver=");
    if (session != NULL)
        buffer_append(out, session->lib_version.data, session->lib_version.len);
    buffer_append_string(out, "\n");
}

/* The clients of this pool in this worker. */
static void client_list(struct client *client)
{
    struct buffer lines = {.max = 16u << 20};
    uint32_t count = 0;

    LIST_FOR_EACH (&client->pool->clients, node) {
        if (count++ < CLIENT_LIST_MAX)
            client_line(CONTAINER_OF(node, struct client, node), &lines);
    }
    reply_bulk(client, buffer_bytes(&lines));
    buffer_deinit(&lines);
}

static void client_reply_mode(struct client *client, struct bytes mode)
{
    struct session *session;

    if (!bytes_equal_nocase(mode, BYTES("on")) && !bytes_equal_nocase(mode, BYTES("off")) &&
        !bytes_equal_nocase(mode, BYTES("skip"))) {
        client_reply_error(client, ERROR_syntax);
        return;
    }
    session = session_get(client);
    if (session == NULL) {
        client_close(client);
    } else if (bytes_equal_nocase(mode, BYTES("on"))) {
        session->reply_mode = REPLY_ON;
        client_reply(client, BYTES("+OK\r\n"));
    } else if (bytes_equal_nocase(mode, BYTES("off"))) {
        session->reply_mode = REPLY_OFF;
    } else if (session->reply_mode != REPLY_OFF) {
        session->reply_mode = REPLY_SKIP_NEXT;
    }
}

static void client_set_info(struct client *client, const struct resp_request *request)
{
    struct bytes what = request->argv[2];

    if (bytes_equal_nocase(what, BYTES("lib-name"))) {
        if (local_set_text(client, offsetof(struct session, lib_name), request->argv[3],
                           "ERR lib-name cannot contain spaces, newlines or special characters."))
            client_reply(client, BYTES("+OK\r\n"));
    } else if (bytes_equal_nocase(what, BYTES("lib-ver"))) {
        if (local_set_text(client, offsetof(struct session, lib_version), request->argv[3],
                           "ERR lib-ver cannot contain spaces, newlines or special characters."))
            client_reply(client, BYTES("+OK\r\n"));
    } else {
        client_reply_text_error(client, "ERR Unrecognized option '%.*s'",
                                BYTES_ARG(bytes_first(what, 64)));
    }
}

static void client_tracking(struct client *client, const struct resp_request *request)
{
    if (bytes_equal_nocase(request->argv[2], BYTES("off")))
        client_reply(client, BYTES("+OK\r\n"));
    else if (bytes_equal_nocase(request->argv[2], BYTES("on")))
        client_reply_text_error(client, "ERR client tracking is not supported by the proxy");
    else
        client_reply_error(client, ERROR_syntax);
}

static void client_on_off(struct client *client, struct bytes mode)
{
    if (bytes_equal_nocase(mode, BYTES("on")) || bytes_equal_nocase(mode, BYTES("off")))
        client_reply(client, BYTES("+OK\r\n"));
    else
        client_reply_error(client, ERROR_syntax);
}

static void client_help(struct client *client)
{
    static const char *const lines[] = {
        "CLIENT <subcommand> [<arg> [value] [opt] ...]. Answered by the proxy:",
        "GETNAME, SETNAME <name>, SETINFO <LIB-NAME|LIB-VER> <value>, ID",
        "INFO, LIST (clients of this pool in the worker that you talk to)",
        "REPLY (ON|OFF|SKIP), NO-EVICT (ON|OFF), NO-TOUCH (ON|OFF)",
        "TRACKING OFF, TRACKINGINFO, GETREDIR",
        "HELP",
        "    Print this help.",
    };

    reply_lines(client, lines, ARRAY_COUNT(lines));
}

static void client_get_name(struct client *client)
{
    if (client->session == NULL || client->session->name.len == 0)
        reply_null(client);
    else
        reply_bulk(client, buffer_bytes(&client->session->name));
}

void redis_client(struct client *client, const struct command *command,
                  const struct resp_request *request)
{
    struct buffer line = {0};

    switch (command->id) {
    case COMMAND_client_id:
        reply_integer(client, (int64_t)client->id);
        break;
    case COMMAND_client_getname:
        client_get_name(client);
        break;
    case COMMAND_client_setname:
        if (local_set_text(client, offsetof(struct session, name), request->argv[2], CLIENT_NAME_ERROR))
            client_reply(client, BYTES("+OK\r\n"));
        break;
    case COMMAND_client_setinfo:
        client_set_info(client, request);
        break;
    case COMMAND_client_info:
        client_line(client, &line);
        reply_bulk(client, buffer_bytes(&line));
        buffer_deinit(&line);
        break;
    case COMMAND_client_list:
        client_list(client);
        break;
    case COMMAND_client_reply:
        client_reply_mode(client, request->argv[2]);
        break;
    case COMMAND_client_no_evict:
    case COMMAND_client_no_touch:
        client_on_off(client, request->argv[2]);
        break;
    case COMMAND_client_tracking:
        client_tracking(client, request);
        break;
    case COMMAND_client_trackinginfo:
        client_reply(client, client->dialect == DIALECT_RESP3
                                 ? BYTES("%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n"
                                         "$8\r\nprefixes\r\n*0\r\n")
                                 : BYTES("*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n"
                                         "$8\r\nprefixes\r\n*0\r\n"));
        break;
    case COMMAND_client_getredir:
        reply_integer(client, -1);
        break;
    case COMMAND_client_help:
        client_help(client);
        break;
    default:
        client_reply_text_error(client, "ERR command '%s' is not supported by the proxy", command->name);
        break;
    }
}
