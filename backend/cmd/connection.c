/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection's own affairs: PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET, COMMAND.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/pubsub.h"
#include "backend/cmd/settings.h"

#include "common/base/mem.h"
#include "common/command/command_docs.h"

#define REDIS_VERSION "7.0.15" /* what clients choose their ways by */
#define AUTH_WRONG    "WRONGPASS invalid username-password pair or user is disabled."

void cmd_ping(struct cmd *c)
{
    if (c->argc > 2) {
        reply_error(c, "ERR wrong number of arguments for 'ping' command");
        return;
    }
    if (c->session->resp == 2 && pubsub_is_subscribed(c->session)) {
        reply_array(c, 2);
        reply_bulk_string(c, "pong");
        reply_bulk(c, c->argc == 2 ? c->argv[1] : BYTES_EMPTY);
    } else if (c->argc == 2) {
        reply_bulk(c, c->argv[1]);
    } else {
        reply_status(c, "PONG");
    }
}

void cmd_echo(struct cmd *c)
{
    reply_bulk(c, c->argv[1]);
}

void cmd_select(struct cmd *c)
{
    int64_t db;

    if (!bytes_to_i64(c->argv[1], &db)) {
        reply_error(c, ERROR_INTEGER);
        return;
    }
    if (db < 0 || db >= (int64_t)STORE_DBS) {
        reply_error(c, "ERR DB index is out of range");
        return;
    }
    c->session->db = (uint8_t)db;
    reply_ok(c);
}

void cmd_quit(struct cmd *c)
{
    c->session->close_after_reply = true;
    reply_ok(c);
}

void cmd_reset(struct cmd *c)
{
    struct session *session = c->session;

    transaction_forget(session);
    pubsub_session_clear(session);
    session->resp = 2;
    session->db = 0;
    if (session->reply_mode != SESSION_REPLY_SKIP) /* of this reply, too */
        session->reply_mode = SESSION_REPLY_ON;
    session->no_touch = false; /* not no_evict: as Redis 7.0 */
    session->is_authenticated = c->engine->settings->password == NULL;
    mem_free(session->name);
    session->name = NULL;
    reply_status(c, "RESET");
}

/* ---- AUTH and HELLO ------------------------------------------------------------------------------------ */

/* There is one user, "default". */
static bool auth_fits(struct cmd *c, struct bytes user, struct bytes password)
{
    const struct settings *settings = c->engine->settings;

    bool fits = bytes_equal(user, BYTES("default")) &&
                (settings->password == NULL || settings_password_fits(settings, password));

    c->engine->counters.auth_errors += !fits;
    return fits;
}

void cmd_auth(struct cmd *c)
{
    struct bytes user = c->argc == 3 ? c->argv[1] : BYTES("default");

    if (c->argc > 3) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (c->argc == 2 && c->engine->settings->password == NULL) {
        reply_error(c, "ERR AUTH <password> called without any password configured for the default user. Are you sure "
                       "your configuration is correct?");
        return;
    }
    if (!auth_fits(c, user, c->argv[c->argc - 1])) {
        reply_error(c, AUTH_WRONG);
        return;
    }
    c->session->is_authenticated = true;
    reply_ok(c);
}

static void reply_hello(struct cmd *c)
{
    reply_map(c, 7);
    reply_bulk_string(c, "server");
    reply_bulk_string(c, "redis");
    reply_bulk_string(c, "version");
    reply_bulk_string(c, REDIS_VERSION);
    reply_bulk_string(c, "proto");
    reply_integer(c, c->session->resp);
    reply_bulk_string(c, "id");
    reply_integer(c, (int64_t)c->session->id);
    reply_bulk_string(c, "mode");
    reply_bulk_string(c, "standalone");
    reply_bulk_string(c, "role");
    reply_bulk_string(c, "master");
    reply_bulk_string(c, "modules");
    reply_array(c, 0);
}

/* HELLO [2 | 3 [AUTH user password] [SETNAME name]] */
void cmd_hello(struct cmd *c)
{
    struct session *session = c->session;
    struct bytes name = {0};
    int64_t version = 0;

    if (c->argc >= 2) {
        if (!bytes_to_i64(c->argv[1], &version)) {
            reply_error(c, "ERR Protocol version is not an integer or out of range");
            return;
        }
        if (version < 2 || version > 3) {
            reply_error(c, "NOPROTO unsupported protocol version");
            return;
        }
    }
    for (uint32_t i = 2; i < c->argc; i++) {
        if (arg_is(c, i, "auth") && i + 2 < c->argc) {
            if (!auth_fits(c, c->argv[i + 1], c->argv[i + 2])) {
                reply_error(c, AUTH_WRONG);
                return;
            }
            session->is_authenticated = true;
            i += 2;
        } else if (arg_is(c, i, "setname") && i + 1 < c->argc) {
            if (!session_name_is_valid(c, c->argv[i + 1]))
                return;
            name = c->argv[++i];
        } else {
            reply_error_format(c, "ERR Syntax error in HELLO option '%.*s'", BYTES_ARG(bytes_first(c->argv[i], 128)));
            return;
        }
    }
    if (!session->is_authenticated) {
        reply_error(c, "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
                       "<user> <pass> option can be used to authenticate the client and select the RESP protocol "
                       "version at the same time");
        return;
    }
    if (name.data != NULL && !session_text_set(c, &session->name, name))
        return;
    if (version != 0)
        session->resp = (uint8_t)version;
    reply_hello(c);
}

/* ---- COMMAND -------------------------------------------------------------------------------------------- */

static void compose_write(void *arg, const char *data, size_t len)
{
    reply_raw(arg, bytes_of(data, len));
}

static void reply_of_table(struct cmd *c)
{
    const struct compose_sink sink = {.write = compose_write, .arg = c->session};

    command_reply_compose(c->argv, c->argc, c->session->resp == 3, CMD_LATER, &sink);
}

void cmd_command(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_count(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_docs(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_getkeys(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_getkeysandflags(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_help(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_info(struct cmd *c)
{
    reply_of_table(c);
}

void cmd_command_list(struct cmd *c)
{
    reply_of_table(c);
}
