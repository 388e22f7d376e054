/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLIENT: who is connected, and what one may do to them.
 *
 * There is no client-side caching: TRACKING ON is refused, the questions about it are answered as for a client
 * that has not turned it on.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/pubsub.h"

#include "common/base/mem.h"

#define TEXT_MAX 128 /* of a client's word in an error line */

/* ---- texts that clients choose ---------------------------------------------------------------------------- */

static bool is_plain(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] < '!' || text.data[i] > '~')
            return false;
    return true;
}

bool session_name_is_valid(struct cmd *c, struct bytes name)
{
    if (is_plain(name) && name.len <= SESSION_NAME_MAX)
        return true;
    reply_error(c, is_plain(name) ? "ERR Client names cannot be that long."
                                  : "ERR Client names cannot contain spaces, newlines or special characters.");
    return false;
}

bool session_text_set(struct cmd *c, char **text, struct bytes value)
{
    char *copy = NULL;

    if (value.len > 0) {
        copy = mem_alloc(value.len + 1);
        if (copy == NULL) {
            cmd_out_of_memory(c);
            return false;
        }
        memcpy(copy, value.data, value.len);
        copy[value.len] = '\0';
    }
    mem_free(*text);
    *text = copy;
    return true;
}

void cmd_client_setname(struct cmd *c)
{
    if (session_name_is_valid(c, c->argv[2]) && session_text_set(c, &c->session->name, c->argv[2]))
        reply_ok(c);
}

void cmd_client_getname(struct cmd *c)
{
    if (c->session->name == NULL)
        reply_null(c);
    else
        reply_bulk_string(c, c->session->name);
}

void cmd_client_setinfo(struct cmd *c)
{
    bool is_name = arg_is(c, 2, "lib-name");

    if (!is_name && !arg_is(c, 2, "lib-ver")) {
        reply_error_format(c, "ERR Unrecognized option '%.*s'", BYTES_ARG(bytes_first(c->argv[2], TEXT_MAX)));
        return;
    }
    if (!is_plain(c->argv[3]) || c->argv[3].len > SESSION_NAME_MAX) {
        reply_error_format(c, "ERR %s cannot contain spaces, newlines or special characters.",
                           is_name ? "lib-name" : "lib-ver");
        return;
    }
    if (session_text_set(c, is_name ? &c->session->lib_name : &c->session->lib_version, c->argv[3]))
        reply_ok(c);
}

/* ---- about this connection --------------------------------------------------------------------------------- */

void cmd_client_id(struct cmd *c)
{
    reply_integer(c, (int64_t)c->session->id);
}

void cmd_client_info(struct cmd *c)
{
    struct buffer line = {0};

    session_describe(c->session, &line);
    buffer_append(&line, "\n", 1);
    if (line.failed)
        cmd_out_of_memory(c);
    else
        reply_verbatim(c, "txt", buffer_bytes(&line));
    buffer_deinit(&line);
}

/* ON or OFF; `out` is left alone otherwise. */
static bool arg_switch(struct cmd *c, uint32_t i, bool *out)
{
    bool is_on = arg_is(c, i, "on");

    if (!is_on && !arg_is(c, i, "off")) {
        reply_error(c, ERROR_SYNTAX);
        return false;
    }
    *out = is_on;
    return true;
}

void cmd_client_no_evict(struct cmd *c)
{
    if (arg_switch(c, 2, &c->session->no_evict))
        reply_ok(c);
}

void cmd_client_no_touch(struct cmd *c)
{
    if (arg_switch(c, 2, &c->session->no_touch))
        reply_ok(c);
}

void cmd_client_reply(struct cmd *c)
{
    struct session *session = c->session;

    if (arg_is(c, 2, "on")) {
        if (session->reply_mode != SESSION_REPLY_SKIP_NEXT) /* by the same EXEC: it is of the command behind that */
            session->reply_mode = SESSION_REPLY_ON;
        reply_ok(c);
    } else if (arg_is(c, 2, "off")) {
        session->reply_mode = SESSION_REPLY_OFF;
    } else if (arg_is(c, 2, "skip")) {
        if (session->reply_mode != SESSION_REPLY_OFF)
            session->reply_mode = SESSION_REPLY_SKIP_NEXT;
    } else {
        reply_error(c, ERROR_SYNTAX);
    }
}

static struct session *session_by_id(struct cmd *c, int64_t id)
{
    LIST_FOR_EACH(&c->engine->sessions, node)
    {
        struct session *session = CONTAINER_OF(node, struct session, node);

        if ((int64_t)session->id == id && !session->is_killed)
            return session;
    }
    return NULL;
}

/* ---- client-side caching: not here --------------------------------------------------------------------------- */

struct tracking {
    bool has_prefix, is_bcast, is_optin, is_optout;
    int64_t redirect; /* 0: none */
};

static bool tracking_redirect(struct cmd *c, uint32_t i, struct tracking *tracking)
{
    if (tracking->redirect != 0) {
        reply_error(c, "ERR A client can only redirect to a single other client");
        return false;
    }
    if (!arg_i64(c, i, &tracking->redirect))
        return false;
    if (session_by_id(c, tracking->redirect) != NULL)
        return true;
    reply_error(c, "ERR The client ID you want redirect to does not exist");
    return false;
}

static bool tracking_parse(struct cmd *c, struct tracking *tracking)
{
    for (uint32_t i = 3; i < c->argc; i++) {
        bool has_value = i + 1 < c->argc;

        if (has_value && arg_is(c, i, "redirect")) {
            if (!tracking_redirect(c, ++i, tracking))
                return false;
        } else if (has_value && arg_is(c, i, "prefix")) {
            tracking->has_prefix = true;
            i++;
        } else if (arg_is(c, i, "bcast")) {
            tracking->is_bcast = true;
        } else if (arg_is(c, i, "optin")) {
            tracking->is_optin = true;
        } else if (arg_is(c, i, "optout")) {
            tracking->is_optout = true;
        } else if (!arg_is(c, i, "noloop")) {
            reply_error(c, ERROR_SYNTAX);
            return false;
        }
    }
    return true;
}

void cmd_client_tracking(struct cmd *c)
{
    struct tracking tracking = {0};
    bool is_on;

    if (!tracking_parse(c, &tracking) || !arg_switch(c, 2, &is_on))
        return;
    if (!is_on)
        reply_ok(c);
    else if (tracking.has_prefix && !tracking.is_bcast)
        reply_error(c, "ERR PREFIX option requires BCAST mode to be enabled");
    else if (tracking.is_bcast && (tracking.is_optin || tracking.is_optout))
        reply_error(c, "ERR OPTIN and OPTOUT are not compatible with BCAST");
    else if (tracking.is_optin && tracking.is_optout)
        reply_error(c, "ERR You can't specify both OPTIN mode and OPTOUT mode");
    else
        reply_error(c, "ERR client-side caching is not supported");
}

void cmd_client_caching(struct cmd *c)
{
    reply_error(c, "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
                   "enabled");
}

void cmd_client_getredir(struct cmd *c)
{
    reply_integer(c, -1);
}

void cmd_client_trackinginfo(struct cmd *c)
{
    reply_map(c, 3);
    reply_bulk_string(c, "flags");
    reply_set(c, 1);
    reply_bulk_string(c, "off");
    reply_bulk_string(c, "redirect");
    reply_integer(c, -1);
    reply_bulk_string(c, "prefixes");
    reply_array(c, 0);
}

/* ---- the others ------------------------------------------------------------------------------------------------ */

enum client_type { TYPE_ANY, TYPE_NORMAL, TYPE_PUBSUB, TYPE_OTHER };

static bool arg_type(struct cmd *c, uint32_t i, enum client_type *out)
{
    *out = TYPE_OTHER;
    if (arg_is(c, i, "normal"))
        *out = TYPE_NORMAL;
    else if (arg_is(c, i, "pubsub"))
        *out = TYPE_PUBSUB;
    else if (!arg_is(c, i, "master") && !arg_is(c, i, "replica") && !arg_is(c, i, "slave")) {
        reply_error_format(c, "ERR Unknown client type '%.*s'", BYTES_ARG(bytes_first(c->argv[i], TEXT_MAX)));
        return false;
    }
    return true;
}

static bool is_of_type(const struct session *session, enum client_type type)
{
    bool is_subscriber = session->subscriptions != NULL && pubsub_is_subscribed(session);

    switch (type) {
    case TYPE_ANY: return true;
    case TYPE_NORMAL: return !is_subscriber;
    case TYPE_PUBSUB: return is_subscriber;
    case TYPE_OTHER: return false;
    }
    UNREACHABLE("no such type");
}

static void describe(const struct session *session, struct buffer *out)
{
    session_describe(session, out);
    buffer_append(out, "\n", 1);
}

/* LIST ID a b c; false: an error was replied. */
static bool list_ids(struct cmd *c, struct buffer *out)
{
    for (uint32_t i = 3; i < c->argc; i++) {
        struct session *session;
        int64_t id;

        if (!bytes_to_i64(c->argv[i], &id)) {
            reply_error(c, "ERR Invalid client ID");
            return false;
        }
        session = session_by_id(c, id);
        if (session != NULL)
            describe(session, out);
    }
    return true;
}

static bool list_type(struct cmd *c, enum client_type type, struct buffer *out)
{
    LIST_FOR_EACH(&c->engine->sessions, node)
    {
        const struct session *session = CONTAINER_OF(node, struct session, node);

        if (!session->is_killed && is_of_type(session, type))
            describe(session, out);
    }
    return true;
}

void cmd_client_list(struct cmd *c)
{
    enum client_type type = TYPE_ANY;
    struct buffer lines = {0};
    bool is_fine;

    if (c->argc == 4 && arg_is(c, 2, "type")) {
        is_fine = arg_type(c, 3, &type) && list_type(c, type, &lines);
    } else if (c->argc > 3 && arg_is(c, 2, "id")) {
        is_fine = list_ids(c, &lines);
    } else if (c->argc == 2) {
        is_fine = list_type(c, TYPE_ANY, &lines);
    } else {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (is_fine && lines.failed)
        cmd_out_of_memory(c);
    else if (is_fine)
        reply_verbatim(c, "txt", buffer_bytes(&lines));
    buffer_deinit(&lines);
}

struct kill_filter {
    int64_t id; /* 0: any */
    struct bytes peer, local; /* data NULL: any */
    enum client_type type;
    bool skips_me;
};

static bool kill_filter_option(struct cmd *c, uint32_t i, struct kill_filter *filter)
{
    if (arg_is(c, i, "id")) {
        if (!bytes_to_i64(c->argv[i + 1], &filter->id) || filter->id < 1) {
            reply_error(c, "ERR client-id should be greater than 0");
            return false;
        }
    } else if (arg_is(c, i, "type")) {
        return arg_type(c, i + 1, &filter->type);
    } else if (arg_is(c, i, "addr")) {
        filter->peer = c->argv[i + 1];
    } else if (arg_is(c, i, "laddr")) {
        filter->local = c->argv[i + 1];
    } else if (arg_is(c, i, "user")) {
        if (bytes_equal(c->argv[i + 1], BYTES("default")))
            return true;
        reply_error_format(c, "ERR No such user '%.*s'", BYTES_ARG(bytes_first(c->argv[i + 1], TEXT_MAX)));
        return false;
    } else if (arg_is(c, i, "skipme") && (arg_is(c, i + 1, "yes") || arg_is(c, i + 1, "no"))) {
        filter->skips_me = arg_is(c, i + 1, "yes");
    } else {
        reply_error(c, ERROR_SYNTAX);
        return false;
    }
    return true;
}

static bool kill_filter_matches(struct cmd *c, const struct kill_filter *filter, const struct session *session)
{
    if (session->is_killed || (filter->skips_me && session == c->session))
        return false;
    if (filter->id != 0 && (int64_t)session->id != filter->id)
        return false;
    if (filter->peer.data != NULL && !bytes_equal(filter->peer, bytes_of_string(session->peer)))
        return false;
    if (filter->local.data != NULL && !bytes_equal(filter->local, bytes_of_string(session->local)))
        return false;
    return is_of_type(session, filter->type);
}

static uint32_t kill_all(struct cmd *c, const struct kill_filter *filter)
{
    uint32_t count = 0;

    LIST_FOR_EACH(&c->engine->sessions, node)
    {
        struct session *session = CONTAINER_OF(node, struct session, node);

        if (!kill_filter_matches(c, filter, session))
            continue;
        count++;
        if (session == c->session)
            session->close_after_reply = true; /* it still gets this answer */
        else
            session->io->kill(session);
    }
    return count;
}

void cmd_client_kill(struct cmd *c)
{
    struct kill_filter filter = {.skips_me = c->argc != 3};
    uint32_t count;

    if (c->argc == 3) {
        filter.peer = c->argv[2];
        if (kill_all(c, &filter) == 0)
            reply_error(c, "ERR No such client");
        else
            reply_ok(c);
        return;
    }
    for (uint32_t i = 2; i < c->argc; i += 2) {
        if (i + 1 == c->argc) {
            reply_error(c, ERROR_SYNTAX);
            return;
        }
        if (!kill_filter_option(c, i, &filter))
            return;
    }
    count = kill_all(c, &filter);
    reply_integer(c, count);
}

void cmd_client_unblock(struct cmd *c)
{
    bool with_error = false;
    struct session *session;
    int64_t id;

    if (c->argc > 4) {
        reply_subcommand_error(c);
        return;
    }
    if (c->argc == 4) {
        with_error = arg_is(c, 3, "error");
        if (!with_error && !arg_is(c, 3, "timeout")) {
            reply_error(c, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
            return;
        }
    }
    if (!arg_i64(c, 2, &id))
        return;
    session = session_by_id(c, id);
    reply_integer(c, session != NULL && blocked_unblock(session, with_error));
}

/* ---- PAUSE ----------------------------------------------------------------------------------------------------- */

void cmd_client_pause(struct cmd *c)
{
    enum engine_pause kind = ENGINE_PAUSE_ALL;
    int64_t ms;

    if (c->argc > 4) {
        reply_subcommand_error(c);
        return;
    }
    if (c->argc == 4) {
        kind = arg_is(c, 3, "write") ? ENGINE_PAUSE_WRITES : ENGINE_PAUSE_ALL;
        if (kind == ENGINE_PAUSE_ALL && !arg_is(c, 3, "all")) {
            reply_error(c, "ERR CLIENT PAUSE mode must be WRITE or ALL");
            return;
        }
    }
    if (!bytes_to_i64(c->argv[2], &ms) || ms > INT64_MAX - (int64_t)c->now_ms) {
        reply_error(c, "ERR timeout is not an integer or out of range");
        return;
    }
    if (ms < 0) {
        reply_error(c, "ERR timeout is negative");
        return;
    }
    engine_pause(c->engine, kind, (uint64_t)ms);
    reply_ok(c);
}

void cmd_client_unpause(struct cmd *c)
{
    engine_pause(c->engine, ENGINE_PAUSE_NONE, 0);
    reply_ok(c);
}

void cmd_client_help(struct cmd *c)
{
    static const char *const lines[] = {
        "CACHING (YES|NO)",
        "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
        "GETREDIR",
        "    Return the client ID we are redirecting to when tracking is enabled.",
        "GETNAME",
        "    Return the name of the current connection.",
        "ID",
        "    Return the ID of the current connection.",
        "INFO",
        "    Return information about the current client connection.",
        "KILL <ip:port>",
        "    Kill connection made from <ip:port>.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Kill connections. Options are:",
        "    * ADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made from the specified address",
        "    * LADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made to specified local address",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Kill connections by type.",
        "    * USER <username>",
        "      Kill connections authenticated by <username>.",
        "    * SKIPME (YES|NO)",
        "      Skip killing current connection (default: yes).",
        "LIST [options ...]",
        "    Return information about client connections. Options:",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Return clients of specified type.",
        "UNPAUSE",
        "    Stop the current client pause, resuming traffic.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Suspend all, or just write, clients for <timeout> milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Control the replies sent to the current connection.",
        "SETNAME <name>",
        "    Assign the name <name> to the current connection.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    Unblock the specified blocked client.",
        "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
        "         [OPTIN] [OPTOUT] [NOLOOP]",
        "    Control server assisted client side caching.",
        "TRACKINGINFO",
        "    Report tracking status for the current connection.",
        "NO-EVICT (ON|OFF)",
        "    Protect current client connection from eviction.",
        "NO-TOUCH (ON|OFF)",
        "    Commands of this client do not count as uses of their keys.",
    };

    reply_help(c, "CLIENT", lines, ARRAY_COUNT(lines));
}
